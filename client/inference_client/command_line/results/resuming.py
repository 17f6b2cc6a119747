"""What a results file holds already, and which of it to keep."""

import csv
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import click

from inference_client.command_line.results.columns import COLUMNS, SCORE_PREFIX, flat_row
from inference_client.command_line.results.encoding import csv_line
from inference_client.command_line.results.locking import InUseError, lock

# Longest line of a results file: the evidence of some 100,000 classes.
MAX_LINE_BYTES = 16 * 2**20
_MOST_BITS = 63  # of a whole number in a Parquet file
# A message about the server or the request begins with the server's url, one about the file with the file's path. What
# the server says of an image begins with neither.
_SERVERS_URL = re.compile(r"https?://\S+ ")


class ResumeError(click.ClickException):
    """A file can't be gone on with."""


@dataclass(kw_only=True)
class Held:
    """What a results file holds.

    Attributes:
        files: Files with a row to keep, as the rows write them.
        failed: How many of them have no result, which another try would not change.
        dropped: How many rows are dropped: their files are sent again.
        versions: Versions that answered.
        classes: Classes of a CSV file's columns; None if there are none yet.
    """

    files: set[str] = field(default_factory=set)
    failed: int = 0
    dropped: int = 0
    versions: set[int] = field(default_factory=set)
    classes: Sequence[str] | None = None

    def keeps(self, file: str, error: str, version: int | None) -> bool:
        """Count a row, and say whether it is kept."""
        if error and may_pass(file, error):
            self.dropped += 1
            return False
        self.files.add(file)
        self.failed += bool(error)
        if version is not None:
            self.versions.add(version)
        return True


def may_pass(file: str, error: str) -> bool:
    """Say whether an image without a result may get one later: the server failed, or the file could not be read.

    >>> may_pass("a.jpg", "http://localhost:8080 refused the connection."), may_pass("a.jpg", "a.jpg can't be read.")
    (True, True)
    >>> may_pass("a.jpg", "not a JPEG file")
    False
    """
    names = (file, os.path.normpath(file), repr(file))
    about_the_file = tuple(
        f"{quote}{name} " for name in names for quote in ("", "'")
    )  # a cell may begin with an apostrophe
    return bool(_SERVERS_URL.match(error)) or error.startswith(about_the_file)


def keep_results(path: Path, keep: Callable[[IO[bytes], IO[bytes], Held], None]) -> Held:
    """Drop from a results file what another run adds: a line that is torn, and images that may get a result.

    Args:
        path: The file; it may be missing, or empty.
        keep: ``keep_csv`` or ``keep_json_lines``.

    Raises:
        ResumeError: The file is none that ``classify`` wrote; it is left as it is.
    """
    held = Held()
    if not path.exists():
        return held
    if not path.is_file():
        raise ResumeError(f"{path} is no regular file: only a file can be gone on with.")
    target = path.resolve()  # a link stays
    kept: Path | None = None
    try:
        with (
            path.open("rb") as lines,
            tempfile.NamedTemporaryFile(dir=target.parent, prefix=f"{target.name}.", delete=False) as temporary,
        ):
            kept = Path(temporary.name)
            lock(lines)
            keep(lines, temporary, held)
            temporary.flush()
            shorter = temporary.tell() < path.stat().st_size
            os.fsync(temporary.fileno())
        if shorter:
            shutil.copymode(target, kept)
            kept.replace(target)
    except InUseError as error:
        raise ResumeError(f"{path} {error}") from error
    except OSError as error:
        raise ResumeError(f"{path} can't be gone on with: {error.strerror}.") from error
    finally:
        if kept is not None:
            kept.unlink(missing_ok=True)
    return held


def keep_csv(lines: IO[bytes], kept: IO[bytes], held: Held) -> None:
    """Copy the rows to keep of a CSV file."""
    rows = _rows(lines)
    header = next(rows, None)
    if header is None:
        return
    scores = header[len(COLUMNS) :]
    if header[: len(COLUMNS)] != list(COLUMNS) or not all(name.startswith(SCORE_PREFIX) for name in scores):
        raise ResumeError(
            f"the columns of {lines.name} are not those that classify writes: {', '.join(COLUMNS)}, and "
            f"{SCORE_PREFIX}CLASS for each class. Name another file with -o."
        )
    if not scores:  # no image had a result, so the classes are unknown
        return
    held.classes = [name.removeprefix(SCORE_PREFIX) for name in scores]
    kept.write(csv_line(header))
    for row in rows:
        try:
            values = dict(zip(header, row, strict=True))
            version = int(values["version"]) if values["version"] else None
        except ValueError as error:
            raise ResumeError(
                f"a row of {lines.name} is no result of classify --csv: {', '.join(row)[:80]}. Name another file with "
                "-o."
            ) from error
        if held.keeps(values["file"], values["error"], version):
            kept.write(csv_line(row))


def keep_json_lines(lines: IO[bytes], kept: IO[bytes], held: Held) -> None:
    """Copy the lines to keep of a JSON Lines file."""
    for number, (line, record) in enumerate(_records(lines), start=1):
        try:
            _require_result(record)
            keeps = held.keeps(record["Image"], record.get("Error", ""), record.get("Version"))
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            raise ResumeError(
                f"line {number} of {lines.name} is no result of classify --jsonl. Name another file with -o."
            ) from error
        if keeps:
            kept.write(line)


def _require_result(record: dict[str, Any]) -> None:
    """Raise an exception for a record that no other part could read again, or that has no place in the columns."""
    row = flat_row(record["Image"], record)
    for name, value in row.items():
        kind = COLUMNS.get(name, float)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise TypeError(name)
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise ValueError(name)
        if isinstance(value, str):
            value.encode()


def read_json_lines(lines: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Read the results of a JSON Lines file, without a line that is torn."""
    return (record for _, record in _records(lines))


def _records(lines: IO[bytes]) -> Iterator[tuple[bytes, Any]]:
    for number, line in enumerate(_whole_lines(lines), start=1):
        try:
            yield line, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ResumeError(f"line {number} of {lines.name} is no JSON. Name another file with -o.") from error


def _rows(lines: IO[bytes]) -> Iterator[list[str]]:
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.reader((line.decode() for line in _whole_lines(lines)), strict=True)
    while True:
        try:
            row = next(reader, None)
        except (csv.Error, UnicodeDecodeError) as error:
            if "unexpected end of data" in str(error):  # torn within quotes
                return
            raise ResumeError(
                f"{lines.name} is no CSV in UTF-8 (line {reader.line_num + 1}: {error}). Name another file with -o."
            ) from error
        if row is None:
            return
        yield row


def _whole_lines(lines: IO[bytes]) -> Iterator[bytes]:
    while (line := lines.readline(MAX_LINE_BYTES)).endswith(b"\n"):
        yield line
    if len(line) == MAX_LINE_BYTES:
        raise ResumeError(f"{lines.name} has a line of more than {MAX_LINE_BYTES:,} bytes. Name another file with -o.")
