"""The bytes of each result, as CSV or as JSON Lines."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from inference_client.command_line.formatting import first_few, is_formula, spreadsheet_text
from inference_client.command_line.results.columns import COLUMNS, SCORE_PREFIX, flat_row, safe_text


class ColumnsError(Exception):
    """An image's result does not fit the columns of the rows before it."""


class Encoding(Protocol):
    """Turns results into the bytes of a file, one by one."""

    def encode(self, file: str, entry: Mapping[str, Any]) -> bytes:
        """Encode one image's result, and what was held back before.

        Raises:
            ColumnsError: The result does not fit the columns.
        """

    def rest(self) -> bytes:
        """Return what is held back."""

    def file_name(self, file: str) -> str:
        """Write a file's name as a row has it."""


class JsonLines:
    """One JSON object a line, of the form that ``classify --json`` gives each image."""

    def encode(self, file: str, entry: Mapping[str, Any]) -> bytes:
        """Encode one image's result."""
        record = {"Image": self.file_name(file), **entry}
        if "Error" in record:
            record["Error"] = safe_text(record["Error"])
        return f"{json.dumps(record, ensure_ascii=False)}\n".encode()

    def rest(self) -> bytes:
        """Return nothing."""
        return b""

    def file_name(self, file: str) -> str:
        """Write a file's name."""
        return safe_text(file)


class Csv:
    """A header, and a row for each image.

    The header names the server's classes, which the first result has. Images without a result that come before it are
    held back until then.

    Args:
        classes: The classes of the header that the file has already; None if it has none.
    """

    def __init__(self, classes: Sequence[str] | None = None) -> None:
        self._classes = classes
        self._held: list[dict[str, Any]] = []

    def encode(self, file: str, entry: Mapping[str, Any]) -> bytes:
        """Encode one image's result, after the header if it is the first."""
        row = flat_row(self.file_name(file), entry)
        if "Error" not in entry:
            classes = list(entry["Scores"])
            if self._classes is None:
                held = self.rest(classes)
                return held + self._encoded(row)
            if sorted(classes) != sorted(self._classes):
                raise ColumnsError(
                    f"version {entry['Version']} of the server has other classes ({first_few(classes)}) than the "
                    f"columns ({first_few(self._classes)})"
                )
        elif self._classes is None:
            self._held.append(row)
            return b""
        return self._encoded(row)

    def rest(self, classes: Sequence[str] = ()) -> bytes:
        """Return the rows that are held back, after the header."""
        held, self._held = self._held, []
        if self._classes is None and (held or classes):
            self._classes = classes
            header = csv_line([*COLUMNS, *(spreadsheet_text(f"{SCORE_PREFIX}{name}") for name in classes)])
            return header + b"".join(map(self._encoded, held))
        return b""

    def file_name(self, file: str) -> str:
        """Write a file's name so that it is the name of the same file, and no spreadsheet's formula."""
        return os.path.join(os.curdir, safe_text(file)) if is_formula(file) else safe_text(file)  # noqa: PTH118

    def _encoded(self, row: Mapping[str, Any]) -> bytes:
        keys = [*COLUMNS, *(f"{SCORE_PREFIX}{name}" for name in self._classes or ())]
        values = (row.get(key) for key in keys)
        return csv_line([spreadsheet_text(safe_text(value)) if isinstance(value, str) else value for value in values])


def csv_line(cells: Sequence[Any]) -> bytes:
    """Encode one row; None is an empty cell."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)  # so that a carriage return in a name is quoted, too
    return line.getvalue().removesuffix("\r\n").encode() + b"\n"
