"""Embeddings are computed once: what a second export of a grown base set, or after an interruption, has to do."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_export import onnx_session as graph_module
from inference_export.base_set import embedding as embeddings_module
from inference_export.base_set.decoding import open_decoder
from inference_export.base_set.embedding import embed_images
from inference_export.base_set.embedding_cache import KEPT_FILES, content_key, open_cache
from inference_export.base_set.image_files import ImageFiles
from inference_export.onnx_session import open_graph
from inference_export.regular_files import FileReader
from tests.conftest import SMALL
from tests.resources import write_faces


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the images of each run of the graph."""
    counts: list[int] = []
    run_graph = graph_module.run_graph

    def counting(session: Any, pixels: Any) -> Any:
        counts.append(len(pixels))
        return run_graph(session, pixels)

    monkeypatch.setattr(embeddings_module, "run_graph", counting)
    return counts


def _embed(small_classification: Path, cache_folder: Path, files: list[Path], out: Path, **options: Any) -> Any:
    session = open_graph(small_classification / "classifier" / "1" / "model.onnx")
    arguments: dict[str, Any] = {
        "destination": out,
        "embedding_size": 512,
        "batch_size": 8,
        "skip_unreadable": True,
        "advance": lambda _: None,
    } | options
    with open_cache(cache_folder, "fingerprint") as cache, open_decoder(SMALL, "exact") as decoder:
        images = ImageFiles(reader=FileReader(), decoder=decoder, max_bytes=2**20)
        unreadable = embed_images(session, images, cache, files, **arguments)
    return np.load(out), unreadable


def test_ten_new_images_among_many_are_all_that_is_computed(
    small_classification: Path, tmp_path: Path, computed: list[int]
) -> None:
    old = write_faces(tmp_path / "images", range(30), "old")
    first, _ = _embed(small_classification, tmp_path / "cache", old, tmp_path / "first.npy")
    assert sum(computed) == 30
    computed.clear()
    everything = sorted([*old, *write_faces(tmp_path / "images", range(100, 110), "new")])
    second, _ = _embed(small_classification, tmp_path / "cache", everything, tmp_path / "second.npy")
    assert sum(computed) == 10
    for row, file in enumerate(everything):
        if file in old:
            np.testing.assert_array_equal(second[row], first[old.index(file)])
    alone, _ = _embed(small_classification, tmp_path / "other", everything, tmp_path / "alone.npy")
    np.testing.assert_allclose(second, alone, atol=1e-5)


def test_interrupted_run_goes_on_where_it_stopped(
    small_classification: Path, tmp_path: Path, computed: list[int]
) -> None:
    files = write_faces(tmp_path / "images", range(30), "x")

    def interrupt(_: int) -> None:
        if sum(computed) == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _embed(small_classification, tmp_path / "cache", files, tmp_path / "out.npy", advance=interrupt)
    _embed(small_classification, tmp_path / "cache", files, tmp_path / "out.npy")
    assert sum(computed) == 30


def test_moved_and_renamed_image_is_known_by_its_content_and_a_changed_one_is_not(
    small_classification: Path, tmp_path: Path, computed: list[int]
) -> None:
    files = write_faces(tmp_path / "images", range(4), "x")
    _embed(small_classification, tmp_path / "cache", files, tmp_path / "out.npy")
    computed.clear()
    moved = files[0].rename(tmp_path / "elsewhere.png")
    files[1].write_bytes(write_faces(tmp_path / "more", [150], "x")[0].read_bytes())
    _embed(small_classification, tmp_path / "cache", [moved, *files[1:]], tmp_path / "out.npy")
    assert sum(computed) == 1


def test_unreadable_images_leave_no_gap(small_classification: Path, tmp_path: Path) -> None:
    files = write_faces(tmp_path / "images", range(5), "x")
    files[2].write_bytes(b"broken")
    found, unreadable = _embed(small_classification, tmp_path / "cache", files, tmp_path / "out.npy")
    assert list(unreadable) == [files[2]]
    assert found.shape == (4, 512)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(4), abs=1e-5)


@pytest.mark.parametrize("damage", ["garbage", "file-for-a-folder", "folder-for-a-file"])
def test_cache_that_cannot_be_used_costs_only_time(
    small_classification: Path, tmp_path: Path, computed: list[int], damage: str
) -> None:
    files = write_faces(tmp_path / "images", range(3), "x")
    cache = tmp_path / "cache"
    if damage == "garbage":
        cache.mkdir()
        (cache / "fingerprint.sqlite").write_bytes(b"no database" * 1000)
    elif damage == "file-for-a-folder":
        cache.write_text("a file where the folder should be")
    else:
        (cache / "fingerprint.sqlite").mkdir(parents=True)
    found, _ = _embed(small_classification, cache, files, tmp_path / "out.npy")
    assert found.shape == (3, 512)
    assert sum(computed) == 3


def test_embeddings_of_another_graph_or_preprocessing_are_not_found(tmp_path: Path) -> None:
    key = content_key(b"image")
    with open_cache(tmp_path, "one") as cache:
        cache.put([key], np.ones((1, 4), np.float32))
        assert cache.get([key])[0] is not None
    with open_cache(tmp_path, "another") as cache:
        assert cache.get([key]) == [None]


def test_caches_that_were_not_used_for_long_are_removed(tmp_path: Path) -> None:
    for number in range(KEPT_FILES + 3):
        with open_cache(tmp_path, f"cache{number}"):
            os.utime(tmp_path / f"cache{number}.sqlite", (number, number))
    with open_cache(tmp_path, "cache0"):
        pass
    left = {file.stem for file in tmp_path.glob("*.sqlite")}
    assert len(left) == KEPT_FILES
    assert "cache0" in left
    assert f"cache{KEPT_FILES + 2}" in left


def test_cache_is_an_ordinary_database(tmp_path: Path) -> None:
    with open_cache(tmp_path, "one") as cache:
        cache.put([b"a", b"b"], np.zeros((2, 4), np.float32))
    with sqlite3.connect(tmp_path / "one.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM embeddings").fetchone() == (2,)
    connection.close()
