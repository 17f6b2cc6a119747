"""Classify files, and write each result as it comes."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import click

from inference_client.classify import Classify
from inference_client.command_line.results.destinations import Destination
from inference_client.command_line.results.encoding import Encoding
from inference_client.command_line.results.resuming import may_pass


class StoppedError(KeyboardInterrupt):
    """SIGTERM, which ends the command as Ctrl-C does."""


@dataclass(kw_only=True)
class Progress:
    """How far a run has come.

    Attributes:
        written: Number of images whose result is written or held back.
        failed: How many of them have no result.
        may_pass: How many of those may get one, if they are sent again.
    """

    written: int = 0
    failed: int = 0
    may_pass: int = 0


def record(
    server: Classify,
    files: Sequence[str],
    encoding: Encoding,
    destination: Destination,
    *,
    progress: Progress,
    versions: set[int],
    advance: Callable[[int], None],
) -> None:
    """Classify files, and write each result as it comes.

    Args:
        server: The server.
        files: The files.
        encoding: How a result is written.
        destination: Where it is written.
        progress: Counts the results.
        versions: Versions that answered before. Another one is named on standard error.
        advance: Called with the number of images answered since the last call.

    Raises:
        StreamError: The server is lost.
        ColumnsError: A result does not fit the columns.
        DestinationError: A result can't be written.
        KeyboardInterrupt: Ctrl-C; ``StoppedError`` for SIGTERM.
    """
    try:
        with _stop_signal(), closing(server.stream(files, details=True)) as results:
            for file, entry in zip(files, results, strict=True):
                content = encoding.encode(file, entry)
                if content:
                    destination.write(content)
                progress.written += 1
                if "Error" in entry:
                    progress.failed += 1
                    progress.may_pass += may_pass(file, entry["Error"])
                _note_version(entry, versions)
                advance(1)
    finally:
        rest = encoding.rest()
        if rest:
            destination.write(rest)


def _note_version(entry: dict[str, Any], versions: set[int]) -> None:
    version = entry.get("Version")
    if version is None or version in versions:
        return
    if versions:
        before = ", ".join(map(str, sorted(versions)))
        click.echo(
            f"Note: version {version} of the server answers now; earlier results are of version {before}. Each result "
            "names its version.",
            err=True,
        )
    versions.add(version)


@contextmanager
def _stop_signal() -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise StoppedError

    if threading.current_thread() is not threading.main_thread():  # where Python takes no signals
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
