"""Files that have not changed are not read again, and files that have are."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_export.base_set import known_images
from inference_export.regular_files import FileReader
from tests.base_set.conftest import Living
from tests.resources import write_faces

NEVER_UNSURE = 0


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are read, as they are read."""
    names: list[str] = []
    usual = FileReader.read

    def read_and_note(self: FileReader, path: Path, max_bytes: int) -> bytes:
        names.append(path.name)
        return usual(self, path, max_bytes)

    monkeypatch.setattr(FileReader, "read", read_and_note)
    return names


@pytest.fixture
def settled(living: Living, read: list[str], monkeypatch: pytest.MonkeyPatch) -> Living:
    """Return a base set whose files were recorded; files count as settled at once."""
    monkeypatch.setattr(known_images, "_LONGEST_TICK_NS", NEVER_UNSURE)
    living.ask("sync")
    assert len(read) == 7
    read.clear()
    return living


def _embeddings(living: Living, version: int) -> Any:
    return np.load(living.head(version) / "base_embeddings.npy")


def test_only_new_files_are_read_and_the_others_keep_their_embeddings(settled: Living, read: list[str]) -> None:
    write_faces(settled.base / "face", [20], "between")
    (settled.base / "other" / "x102.png").unlink()
    found = settled.ask("sync")
    assert read == ["between020.png"]
    assert (found["added"], found["removed"]) == (["face/between020.png"], ["other/x102.png"])
    before, after = _embeddings(settled, 1), _embeddings(settled, 2)
    np.testing.assert_array_equal(after[[1, 2, 3, 4, 5, 6]], before[[0, 1, 2, 3, 4, 6]])
    settled.ask("sync")
    assert read == ["between020.png"]


def test_file_changed_with_its_length_and_time_kept_is_read_again(settled: Living, read: list[str]) -> None:
    file = settled.base / "face" / "x001.png"
    status = file.stat()
    content = bytearray(write_faces(settled.folder / "another", [50], "x")[0].read_bytes())
    file.write_bytes(content[: status.st_size].ljust(status.st_size, b"\0"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    settled.run("sync")
    assert read == ["x001.png"]


def test_two_files_that_change_names_change_embeddings(settled: Living) -> None:
    one, other = settled.base / "face" / "x001.png", settled.base / "face" / "x002.png"
    one.rename(settled.base / "kept")
    other.rename(one)
    (settled.base / "kept").rename(other)
    found = settled.ask("sync")
    assert found["replaced"] == ["face/x001.png", "face/x002.png"]
    np.testing.assert_array_equal(_embeddings(settled, 2)[[1, 0]], _embeddings(settled, 1)[[0, 1]])


def test_file_that_has_just_changed_is_read_again_since_its_times_may_stay_the_same(
    living: Living, read: list[str]
) -> None:
    living.ask("sync")
    living.ask("sync")
    assert len(read) == 2 * 7


@pytest.mark.parametrize("damage", ["garbage", "empty", "archive", "another-kind", "too-short"])
def test_record_that_cannot_be_used_costs_only_time(settled: Living, read: list[str], damage: str) -> None:
    (record,) = settled.cache.glob("*.npy")
    if damage == "garbage":
        record.write_bytes(b"no record")
    elif damage in ("empty", "archive"):
        record.write_bytes(b"" if damage == "empty" else b"PK\3\4 no archive")
    elif damage == "another-kind":
        np.save(record, np.zeros(7))
    else:
        np.save(record, np.load(record)[:-1])
    write_faces(settled.base / "face", [20], "new")
    assert settled.ask("sync")["added"] == ["face/new020.png"]
    assert len(read) == 8
