"""Parquet, made of JSON Lines when all images are answered: a Parquet file that breaks off can't be read."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_client.command_line.results.columns import COLUMNS, SCORE_PREFIX, flat_row
from inference_client.command_line.results.destinations import DestinationError
from inference_client.command_line.results.resuming import read_json_lines

if TYPE_CHECKING:
    import pyarrow as pa

PACKAGE = "pyarrow"
ROWS_PER_GROUP = 10_000


def write_parquet(source: Path, target: Path) -> None:
    """Write the results of a JSON Lines file as Parquet.

    Args:
        source: The JSON Lines file.
        target: The Parquet file; it is replaced once all of it is written.

    Raises:
        DestinationError: It can't be written.
    """
    from pyarrow import parquet

    schema = _schema(source)
    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        with parquet.ParquetWriter(unfinished, schema) as writer:
            for rows in _groups(_flat_rows(source)):
                writer.write_table(_table(rows, schema))
        unfinished.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DestinationError(f"{target} can't be written: {reason}. The results are in {source}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _schema(source: Path) -> pa.Schema:
    """Read which classes the columns have: several versions of the server may have answered."""
    import pyarrow as pa

    types = {str: pa.string(), float: pa.float64(), int: pa.int64()}
    classes = dict.fromkeys(name for row in _flat_rows(source) for name in row if name.startswith(SCORE_PREFIX))
    columns = [(name, types[kind]) for name, kind in COLUMNS.items()]
    return pa.schema([*columns, *((name, pa.float64()) for name in classes)])


def _flat_rows(source: Path) -> Iterator[dict[str, Any]]:
    with source.open("rb") as lines:
        for record in read_json_lines(lines):
            yield flat_row(record["Image"], record)


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while group := list(itertools.islice(rows, ROWS_PER_GROUP)):
        yield group


def _table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist(rows, schema=schema)
