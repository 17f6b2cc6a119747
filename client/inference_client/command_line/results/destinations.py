"""Where results go: a file that never holds half a result, or standard output."""

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import click

from inference_client.command_line.printing import standard_output_failed
from inference_client.command_line.results.locking import InUseError, lock


class DestinationError(click.ClickException):
    """The results can't be written any further; all of those written before are whole."""


class Destination(Protocol):
    """Takes the bytes of results, each at once."""

    def write(self, content: bytes) -> None:
        """Write whole results, so that other programs see them at once.

        Raises:
            DestinationError: They can't be written.
        """

    def close(self) -> None:
        """Finish."""


class ResultsFile:
    """A file that gets longer by whole results.

    Args:
        path: The file.
        goes_on: Whether it may exist already, with results to keep.

    Raises:
        DestinationError: It can't be opened, exists already, or is being written by another run.
    """

    def __init__(self, path: Path, *, goes_on: bool) -> None:
        self._path = path
        try:
            self._file = path.open("ab" if goes_on else "xb", buffering=0)
        except FileExistsError as error:
            raise DestinationError(
                f"{path} exists already. Go on with it with --resume, or name another file: nothing is overwritten."
            ) from error
        except OSError as error:
            raise DestinationError(
                f"{path} can't be written: {error.strerror}. Name a file in another folder."
            ) from error
        try:
            lock(self._file)
        except InUseError as error:
            self._file.close()
            raise DestinationError(f"{path} {error}") from error
        self._whole_bytes = self._file.seek(0, os.SEEK_END)

    def write(self, content: bytes) -> None:
        """Write whole results; if the disk is full, none of them."""
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._cut()
            raise DestinationError(
                f"{self._path} can't be written any further: {error.strerror}. What it holds is whole."
            ) from error
        except BaseException:  # Ctrl-C
            self._cut()
            raise
        self._whole_bytes += len(content)

    def close(self) -> None:
        """Close the file, and remove it if it is empty."""
        try:
            self._file.close()
        except OSError as error:
            raise DestinationError(f"{self._path} may not be whole: {error.strerror}.") from error
        if not self._whole_bytes:
            self._path.unlink(missing_ok=True)

    def _cut(self) -> None:
        with suppress(OSError):
            self._file.truncate(self._whole_bytes)


class StandardOutput:
    """Standard output, which may be a pipe or a file on a full disk."""

    def write(self, content: bytes) -> None:
        """Write whole results."""
        try:
            sys.stdout.buffer.write(content)
            sys.stdout.buffer.flush()
        except OSError as error:
            if error.errno == errno.EPIPE:  # click ends the program quietly
                raise
            raise standard_output_failed(error) from error

    def close(self) -> None:
        """Leave it open."""
