"""Base images whose files have not changed since a base set was made from them, so that nobody reads them again."""

from __future__ import annotations

import contextlib
import os
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.format import open_memmap

from inference_export.base_set.base_images import BaseImages
from inference_export.base_set.embedding_cache import remove_oldest
from inference_export.base_set.scoring import Float32, Index
from inference_export.regular_files import FileReader

_HASH_BYTES = 32
# What tells whether a file has changed (length, times of the last change in ns, inode), and the SHA-256 of its content.
_RECORD = np.dtype([("status", np.int64, (4,)), ("content", np.uint8, (_HASH_BYTES,))])
_SUFFIX = ".npy"
_UNSURE = -1  # the file is missing or has just changed, so it must be read next time
# Within one tick of the file system's clock, such as 2 s on FAT, a file may change again without new times.
_LONGEST_TICK_NS = 2 * 10**9
_BLOCK_ROWS = 8192


@dataclass(frozen=True, kw_only=True)
class KnownImages:
    """What a base set knows about N base images of a folder.

    Attributes:
        status: What tells whether each image's file has changed, int64 [N, 4].
        named: Row of the image of the same name in the base set, integers [N]; -1: there is none.
        rows: Row in the base set of each image whose file is the same, integers [N]; -1: the file must be read.
        embeddings: The embeddings of the base set, float32 [B, D].
        contents: The SHA-256 of the base set's files, uint8 [B, 32].
    """

    status: npt.NDArray[np.int64]
    named: Index
    rows: Index
    embeddings: Float32
    contents: npt.NDArray[np.uint8]

    @property
    def unknown(self) -> Index:
        """Positions of the images whose files must be read."""
        return np.flatnonzero(self.rows < 0)

    def without(self, positions: Sequence[int]) -> KnownImages:
        """Leave out the images at some positions."""
        return replace(
            self, **{name: np.delete(getattr(self, name), positions, axis=0) for name in ("status", "named", "rows")}
        )

    def unknown_files(self, base: BaseImages) -> list[Path]:
        """Return the paths of the images whose files must be read; ``base`` holds the same N images."""
        return [base.folder / base.name(position) for position in self.unknown.tolist()]

    def hashes(self, base: BaseImages, reader: FileReader) -> Iterator[str]:
        """Return the SHA-256 of each image's file in hexadecimal; ``UNREADABLE`` for a file that could not be read.

        Args:
            base: The same N images.
            reader: Has read the files that had to be read.
        """
        for start in range(0, len(self.rows), _BLOCK_ROWS):
            rows = self.rows[start : start + _BLOCK_ROWS]
            is_known = rows >= 0
            contents = np.zeros((len(rows), _HASH_BYTES), np.uint8)
            contents[is_known] = self.contents[rows[is_known]]
            digits = contents.tobytes().hex()
            for place, known in enumerate(is_known.tolist()):
                if known:
                    yield digits[2 * _HASH_BYTES * place : 2 * _HASH_BYTES * (place + 1)]
                else:
                    yield reader.sha256(base.folder / base.name(start + place))

    def copy_embeddings(self, destination: Float32) -> None:
        """Write the embeddings of the known images into their rows, float32 [N, D]."""
        breaks = np.flatnonzero((np.diff(self.rows) != 1) | (self.rows[1:] <= 0)) + 1
        starts = [0, *breaks.tolist()]
        for start, stop in zip(starts, [*starts[1:], len(self.rows)], strict=True):
            row = int(self.rows[start])
            if row >= 0:
                destination[start:stop] = self.embeddings[row : row + stop - start]


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A record of the files of a base set.

    Attributes:
        file: The file that keeps the record.
        images: The base images, [B].
    """

    file: Path
    images: Any

    def write(self) -> None:
        """Keep the record. If that fails, the next change reads all files again."""
        new = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        try:
            with contextlib.suppress(OSError):
                self.file.parent.mkdir(parents=True, exist_ok=True)
                with new.open("wb") as opened:
                    np.save(opened, self.images)
                new.replace(self.file)
                remove_oldest(self.file.parent, _SUFFIX)
        finally:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)


def nothing_known(base: BaseImages) -> KnownImages:
    """Return that every file must be read."""
    none = np.full(len(base), -1, np.intp)
    return KnownImages(
        status=_read_status(base),
        named=none,
        rows=none,
        embeddings=np.zeros((0, 0), np.float32),
        contents=np.zeros((0, _HASH_BYTES), np.uint8),
    )


def find_known(
    base: BaseImages, *, names: Sequence[str], embeddings: Float32, cache: Path, decoding: str, base_data: str | None
) -> KnownImages:
    """Find the base images whose files have not changed since a base set was made from them.

    Args:
        base: The base images.
        names: ``class/file name`` of each image of the base set.
        embeddings: The embeddings of the base set, float32 [B, D].
        cache: Folder of caches, with the ``FileRecord`` of the base set.
        decoding: Name of the way to decode (``ImageFiles.decoding``).
        base_data: Hash of the base images that the base set was made from.
    """
    known = replace(nothing_known(base), named=match_names(names, base), embeddings=embeddings)
    record = _read_record(_record_file(cache, decoding, base_data))
    if record is None or len(record) != len(names):
        return known
    is_sure = (known.named >= 0) & (known.status != _UNSURE).all(axis=1)
    same = is_sure & (record["status"][np.maximum(known.named, 0)] == known.status).all(axis=1)
    return replace(known, rows=np.where(same, known.named, -1), contents=record["content"])


def match_names(names: Sequence[str], base: BaseImages) -> Index:
    """Return the position of each base image's ``class/file name`` among names, integers [N]; -1: it is not there."""
    positions = dict(zip(names, range(len(names)), strict=True))
    return np.fromiter(map(positions.get, base.names, repeat(-1)), np.intp, len(base))


def record_files(
    base: BaseImages, known: KnownImages, reader: FileReader, *, cache: Path, decoding: str, base_data: str
) -> FileRecord:
    """Describe the files of a base set, for ``find_known``.

    Args:
        base: The base images, which all decode.
        known: What was known about them before they were read.
        reader: Has read the files that were not known.
        cache: Folder of caches.
        decoding: Name of the way to decode (``ImageFiles.decoding``).
        base_data: Hash of the base images, before undecodable ones were left out.
    """
    images = np.zeros(len(base), _RECORD)
    images["status"] = known.status
    is_known = known.rows >= 0
    images["content"][is_known] = known.contents[known.rows[is_known]]
    for position, file in zip(known.unknown, known.unknown_files(base), strict=True):
        images["content"][position] = np.frombuffer(bytes.fromhex(reader.sha256(file)), np.uint8)
    return FileRecord(file=_record_file(cache, decoding, base_data), images=images)


def _read_status(base: BaseImages) -> npt.NDArray[np.int64]:
    now_ns = time.time_ns()
    values = array("q")
    for name in base.names:
        try:
            found = os.stat(f"{base.folder}/{name}")  # noqa: PTH116  (a path object for each file takes much longer)
        except OSError:
            values.extend((_UNSURE,) * 4)
        else:
            values.extend((found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))
    status = np.frombuffer(values, np.int64).reshape(-1, 4)
    status[status[:, 1:3].max(axis=1, initial=0) > now_ns - _LONGEST_TICK_NS] = _UNSURE
    return status


def _record_file(cache: Path, decoding: str, base_data: str | None) -> Path:
    return cache / f"{decoding}-{base_data}{_SUFFIX}"


def _read_record(file: Path) -> Any:
    """Map the record of a base set's files, [B]; None if there is none."""
    with contextlib.suppress(Exception):  # numpy raises many kinds of errors on damaged files
        record = open_memmap(file, "r")  # type: ignore[no-untyped-call]
        if record.dtype == _RECORD and record.ndim == 1:
            return np.asarray(record)
    return None
