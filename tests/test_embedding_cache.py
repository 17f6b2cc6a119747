"""Embeddings are computed once: the work of an export after the base set has grown, or after an interruption."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_export import onnx_session as graph_module
from inference_export.base_set import embedding as embeddings_module
from inference_export.base_set import image_files
from inference_export.base_set.base_images import BaseImages
from inference_export.base_set.building import check_base_images
from inference_export.base_set.decoding import DEFAULT_LIMITS, open_decoder
from inference_export.base_set.embedding import embed_images
from inference_export.base_set.embedding_cache import KEPT_FILES, open_cache, open_embedded
from inference_export.base_set.image_files import open_image_files
from inference_export.base_set.known_images import nothing_known
from inference_export.onnx_session import open_graph
from inference_export.progress import show_nothing
from inference_export.regular_files import FileReader
from tests.conftest import SMALL
from tests.resources import write_faces

GRAPH = "graph"
EMBEDDING_SIZE = 512


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


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the image files of each call of the decoder."""
    counts: list[int] = []

    def open_counting(*arguments: Any) -> Any:
        decoders: Any = open_decoder(*arguments)
        decode = decoders.decode

        def counting(contents: Sequence[bytes]) -> Any:
            counts.append(len(contents))
            return decode(contents)

        monkeypatch.setattr(decoders, "decode", counting)
        return decoders

    monkeypatch.setattr(image_files, "open_decoder", open_counting)
    return counts


def _embed(small_classification: Path, cache_folder: Path, files: list[Path], **options: Any) -> Any:
    graph = small_classification / "classifier" / "1" / "model.onnx"
    base = BaseImages(folder=files[0].parents[1], classes={files[0].parent.name: [file.name for file in files]})
    with (
        open_image_files(FileReader(), image_size=SMALL, decode="exact", limits=DEFAULT_LIMITS) as images,
        open_cache(cache_folder, images.decoding, GRAPH) as cache,
    ):
        base, _ = check_base_images(
            base, nothing_known(base), images, cache=cache_folder, skip_undecodable=True, progress=show_nothing
        )
        embeddings = np.empty((len(base), EMBEDDING_SIZE), np.float32)
        rows = np.arange(len(base))
        embed_images(
            partial(open_graph, graph),
            images,
            cache,
            base.files,
            destination=embeddings,
            rows=rows,
            batch_size=8,
            **options,
        )
    return embeddings, base


def test_ten_new_images_among_many_are_all_that_is_computed(
    small_classification: Path, tmp_path: Path, computed: list[int], decoded: list[int]
) -> None:
    old = write_faces(tmp_path / "images", range(30), "old")
    first, _ = _embed(small_classification, tmp_path / "cache", old)
    assert sum(computed) == sum(decoded) == 30
    computed.clear()
    decoded.clear()
    everything = sorted([*old, *write_faces(tmp_path / "images", range(100, 110), "new")])
    second, _ = _embed(small_classification, tmp_path / "cache", everything)
    assert sum(computed) == sum(decoded) == 10
    for row, file in enumerate(everything):
        if file in old:
            np.testing.assert_array_equal(second[row], first[old.index(file)])
    alone, _ = _embed(small_classification, tmp_path / "other", everything)
    np.testing.assert_allclose(second, alone, atol=1e-5)


def test_interrupted_run_goes_on_where_it_stopped(
    small_classification: Path, tmp_path: Path, computed: list[int]
) -> None:
    files = write_faces(tmp_path / "images", range(30), "x")

    def interrupt(_: int) -> None:
        if sum(computed) == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _embed(small_classification, tmp_path / "cache", files, advance=interrupt)
    _embed(small_classification, tmp_path / "cache", files)
    assert sum(computed) == 30


def test_moved_and_renamed_image_is_known_by_its_content_and_a_changed_one_is_not(
    small_classification: Path, tmp_path: Path, computed: list[int]
) -> None:
    files = write_faces(tmp_path / "images", range(4), "x")
    _embed(small_classification, tmp_path / "cache", files)
    computed.clear()
    moved = files[0].rename(files[0].with_name("elsewhere.png"))
    files[1].write_bytes(write_faces(tmp_path / "more", [150], "x")[0].read_bytes())
    _embed(small_classification, tmp_path / "cache", [moved, *files[1:]])
    assert sum(computed) == 1


def test_image_that_another_graph_has_embedded_is_decoded_when_its_embedding_is_needed(
    small_classification: Path, tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_faces(tmp_path / "images", range(4), "x")
    first, _ = _embed(small_classification, tmp_path / "cache", files)
    monkeypatch.setattr(sys.modules[__name__], "GRAPH", "another graph")
    second, _ = _embed(small_classification, tmp_path / "cache", files)
    assert sum(computed) == 8
    np.testing.assert_array_equal(first, second)


def test_images_beyond_those_whose_pixels_are_kept_are_decoded_again(
    small_classification: Path, tmp_path: Path, decoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_faces(tmp_path / "images", range(20), "x")
    every, _ = _embed(small_classification, tmp_path / "cache1", files)
    assert sum(decoded) == 20
    decoded.clear()
    monkeypatch.setattr(image_files, "MAX_KEPT_BYTES", 13 * SMALL * SMALL * 3)
    some, _ = _embed(small_classification, tmp_path / "cache2", files)
    assert sum(decoded) == 20 + 7
    np.testing.assert_allclose(every, some, atol=1e-5)


def test_undecodable_images_leave_no_gap(small_classification: Path, tmp_path: Path) -> None:
    files = write_faces(tmp_path / "images", range(5), "x")
    files[2].write_bytes(b"broken")
    files[3].unlink()
    embeddings, base = _embed(small_classification, tmp_path / "cache", files)
    assert base.files == [files[0], files[1], files[4]]
    (note,) = base.notes
    assert f"{files[3]}: No such file or directory" in note
    assert f"{files[2]}: no image in a supported format" in note
    assert embeddings.shape == (3, 512)
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(np.ones(3), abs=1e-5)


@pytest.mark.parametrize("damage", ["garbage", "file-for-a-folder", "folder-for-a-file"])
def test_cache_that_cannot_be_used_costs_only_time(
    small_classification: Path, tmp_path: Path, computed: list[int], damage: str
) -> None:
    files = write_faces(tmp_path / "images", range(3), "x")
    cache = tmp_path / "cache"
    if damage == "garbage":
        _embed(small_classification, cache, files)
        computed.clear()
        (file,) = cache.iterdir()
        file.write_bytes(b"no database" * 1000)
    elif damage == "file-for-a-folder":
        cache.write_text("a file where the folder should be")
    else:
        _embed(small_classification, cache, files)
        computed.clear()
        (file,) = cache.iterdir()
        file.unlink()
        file.mkdir()
    embeddings, _ = _embed(small_classification, cache, files)
    assert embeddings.shape == (3, 512)
    assert sum(computed) == 3


@pytest.mark.parametrize(
    "stored", ["text", None, 5, b"odd", np.zeros(3, np.float32).tobytes(), np.full(512, np.nan, np.float32).tobytes()],
    ids=["text", "null", "number", "odd-length", "short", "not-finite"],
)  # fmt: skip
def test_damaged_embedding_is_computed_again(
    small_classification: Path, tmp_path: Path, computed: list[int], stored: object
) -> None:
    files = write_faces(tmp_path / "images", range(3), "x")
    first, _ = _embed(small_classification, tmp_path / "cache", files)
    computed.clear()
    (database,) = (tmp_path / "cache").glob("*.sqlite")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE embeddings SET embedding = ?", (stored,))
    second, _ = _embed(small_classification, tmp_path / "cache", files)
    assert sum(computed) == 3
    np.testing.assert_array_equal(first, second)


def test_embeddings_of_another_graph_or_way_to_decode_are_not_found(tmp_path: Path) -> None:
    key = b"content"
    with open_cache(tmp_path, "decoding", "graph") as cache:
        cache.put([key], np.ones((1, 4), np.float32))
        assert cache.get([key])[0] is not None
    for decoding, graph in (("decoding", "another"), ("another", "graph")):
        with open_cache(tmp_path, decoding, graph) as cache:
            assert cache.get([key]) == [None]
    for decoding, is_embedded in (("decoding", True), ("another", False)):
        with open_embedded(tmp_path, decoding) as embedded:
            assert (key in embedded) == is_embedded
            assert b"another image" not in embedded


def test_caches_that_were_not_used_for_long_are_removed(tmp_path: Path) -> None:
    for number in range(KEPT_FILES + 3):
        with open_cache(tmp_path, "d", f"{number}"):
            os.utime(tmp_path / f"d-{number}.sqlite", (number, number))
    with open_cache(tmp_path, "d", "0"):
        pass
    left = {file.stem for file in tmp_path.glob("*.sqlite")}
    assert len(left) == KEPT_FILES
    assert "d-0" in left
    assert f"d-{KEPT_FILES + 2}" in left
