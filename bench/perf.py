"""Drives a server with perf_analyzer: ``ensemble`` with a real JPEG, ``classifier`` with random pixels."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from bench.errors import BenchError
from bench.images import find_photograph
from bench.input_data import encode_input
from bench.perf_analyzer import environment, fetch_perf_analyzer, library_path
from examples.demonstration.errors import DemonstrationError
from examples.demonstration.layout import Layout
from examples.demonstration.prepare import prepare_demonstration
from examples.demonstration.serving import export_demonstration, serve_demonstration
from inference_client.command_line.options import COMMAND_SETTINGS

BUILD = Path("build")
DEMONSTRATION = Layout(out=BUILD / "demonstration")
DEMONSTRATION_MODE = "clustering"
CONCURRENCY = 4
WINDOW_MS = 2000
MAX_WINDOWS = 20  # on a busy machine it takes many until three in a row agree
STABILITY_PERCENT = 50
TERMINATED_EXIT_CODE = 128 + signal.SIGTERM


@click.command(context_settings=COMMAND_SETTINGS)
@click.option(
    "-u",
    "--url",
    metavar="HOST:PORT",
    help="HTTP address of a running server. Without it, a server is started on the demonstration's model repository, "
    "which is made if it does not exist.",
)
def main(url: str | None) -> None:
    """Measure a server with NVIDIA's perf_analyzer.

    Fetches perf_analyzer into build/perf_analyzer/ if it is not there. Then
    drives ensemble with a real JPEG and classifier with random pixels. Prints
    each command line, ready to run again, and its output.

    \b
    Examples:
      python -m bench.perf
      python -m bench.perf -u 127.0.0.1:8080

    Exit status: 0 both ran, 1 one failed, 2 wrong usage.
    """  # noqa: D301  (click wants the backspace itself)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED_EXIT_CODE))
    try:
        binary = fetch_perf_analyzer(BUILD / "perf_analyzer")
        image = BUILD / "perf" / "ensemble.json"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_text(encode_input([find_photograph().read_bytes()]))
        with _server(url) as address:
            failed = [
                model
                for model, input_data in (("ensemble", str(image)), ("classifier", "random"))
                if not run_perf_analyzer(binary, perf_arguments(model, input_data, address))
            ]
    except (BenchError, DemonstrationError) as error:
        raise click.ClickException(str(error)) from error
    if failed:
        raise click.ClickException(f"perf_analyzer failed for {' and '.join(failed)}; its own output says why.")


def perf_arguments(model: str, input_data: str, address: str) -> list[str]:
    """Build the arguments for perf_analyzer.

    Args:
        model: Name of the model.
        input_data: A file in perf_analyzer's JSON format, or ``random``.
        address: ``host:port`` of the server's HTTP endpoint.
    """
    return [
        "-m", model, "-i", "http", "-u", address, "--input-data", input_data, "--concurrency-range", str(CONCURRENCY),
        "--measurement-interval", str(WINDOW_MS), "--max-trials", str(MAX_WINDOWS),
        "--stability-percentage", str(STABILITY_PERCENT), "--percentile", "95",
    ]  # fmt: skip


def run_perf_analyzer(binary: Path, arguments: list[str]) -> bool:
    """Print a command line, run it with this program's output, and return whether it succeeded."""
    command = [str(binary), *arguments]
    click.echo(f"$ LD_LIBRARY_PATH={shlex.quote(library_path(binary))} {shlex.join(command)}")
    return subprocess.run(command, check=False, env=environment(binary)).returncode == 0


@contextmanager
def _server(url: str | None) -> Iterator[str]:
    if url is not None:
        yield _host_and_port(url)
        return
    if not DEMONSTRATION.repository(DEMONSTRATION_MODE).is_dir():
        prepare_demonstration(DEMONSTRATION)
        export_demonstration(DEMONSTRATION, DEMONSTRATION_MODE)
    with serve_demonstration(DEMONSTRATION, DEMONSTRATION_MODE) as started:
        yield _host_and_port(started)


def _host_and_port(url: str) -> str:
    return url.removeprefix("http://").rstrip("/")


if __name__ == "__main__":
    main(prog_name="python -m bench.perf")
