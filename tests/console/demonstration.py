"""The demonstration's server and a console, on a copy that may be changed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.console.running import RunningConsole, running_console
from tests.watched import WatchedServer, watched_server

DEMONSTRATION = Path("build/demonstration")


@dataclass(frozen=True, kw_only=True)
class Served:
    """A copy of the demonstration that is served.

    Attributes:
        server: The inference server.
        console: The console, which may change the base set.
        base: The folder of base images.
        queries: Held-out images, files.
    """

    server: WatchedServer
    console: RunningConsole
    base: Path
    queries: list[Path]


@contextlib.contextmanager
def served_demonstration(folder: Path) -> Iterator[Served]:
    """Serve a copy of the demonstration until the context ends; make the demonstration first if it is not there.

    Args:
        folder: Folder for the copy and the logs. What it holds is removed.
    """
    with contextlib.ExitStack() as stack:
        server, base, arguments = stack.enter_context(demonstration_server(folder))
        console = stack.enter_context(running_console(folder / "console.log", *arguments))
        yield Served(server=server, console=console, base=base, queries=queries())


@contextlib.contextmanager
def demonstration_server(folder: Path) -> Iterator[tuple[WatchedServer, Path, tuple[str, ...]]]:
    """Serve a copy of the demonstration; yield the server, the folder of base images, and a console's arguments."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if not (DEMONSTRATION / "resources").is_dir():
        _run("examples.demonstration", "prepare", "--out", DEMONSTRATION)
    base = Path(shutil.copytree(DEMONSTRATION / "base", folder / "base"))
    repository = folder / "model_repository"
    # Exported anew: base-set changes no repository of other code.
    _run("inference_export", "-r", DEMONSTRATION / "resources", "-data", base, "--image_size", 64,
         "--model_repository", repository, "--cache", folder / "cache")  # fmt: skip
    with watched_server("--model_repository", repository, log=folder / "server.log") as server:
        yield (
            server,
            base,
            (
                "-ip", server.url, "-data", str(base), "--model_repository", str(repository),
                "--queries", str(DEMONSTRATION / "query"), "--cache", str(folder / "cache"),
            ),
        )  # fmt: skip


def queries() -> list[Path]:
    """List the demonstration's held-out images."""
    return sorted(file for file in (DEMONSTRATION / "query").rglob("*") if file.is_file())


def _run(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True, stdout=sys.stderr)
