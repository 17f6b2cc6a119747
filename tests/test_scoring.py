"""Labels and evidence from similarities, with the modules that the server loads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_export.template import template_directory


@pytest.fixture(scope="module")
def heads() -> Iterator[Any]:
    """Import the served modules as Triton's stub does, without leaving bytecode beside them."""
    # An export lays the files that both Python models share beside the others.
    folders = [str(template_directory() / model / "1") for model in ("cluster_head", "preprocess")]
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path[:0] = folders
    try:
        import heads as module  # type: ignore[import-not-found]

        yield module
    finally:
        for folder in folders:
            sys.path.remove(folder)
        sys.dont_write_bytecode = before
        for name in ("heads", "base_set", "parameters", "scoring"):
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def scoring(heads: Any) -> Any:
    """Return the module that ``heads`` has imported."""
    return sys.modules["scoring"]


THRESHOLD = 0.75


# Unit vectors in the plane, by angle: similarities are cosines.
def _at(*degrees: float) -> np.ndarray[Any, Any]:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def _clustering(heads: Any, sizes: list[int], base: np.ndarray[Any, Any], **settings: Any) -> Any:
    classes = ["a", "b", "c"][: len(sizes)]
    names = [f"{name}/{number}" for name, size in zip(classes, sizes, strict=True) for number in range(size)]
    defaults = {"classes": classes, "threshold": THRESHOLD, "unknown_label": None, "neighbors": 5}
    lines = np.frombuffer("".join(f"{name}\n" for name in names).encode(), np.uint8)
    return heads.ClusteringHead(defaults | settings, heads.BaseSet(base, sizes, lines))


def _answer(head: Any, queries: np.ndarray[Any, Any], threshold: float = THRESHOLD) -> Any:
    return head.answer(queries, np.zeros((len(queries), 2), np.float32), np.full(len(queries), threshold, np.float32))


def test_most_matches_win_over_the_highest_similarity(heads: Any) -> None:
    answer = _answer(_clustering(heads, [1, 2], _at(0, 20, 25)), _at(0))
    assert answer["LABEL"].tolist() == [["b"]]
    assert answer["MATCHES"].tolist() == [[1, 2]]
    assert answer["PROBABILITY"][0, 0] == pytest.approx(np.cos(np.deg2rad(20)))


def test_tie_in_matches_goes_to_the_highest_similarity(heads: Any) -> None:
    assert _answer(_clustering(heads, [1, 1], _at(20, 10)), _at(0))["LABEL"].tolist() == [["b"]]


def test_tie_at_zero_matches_goes_to_the_highest_similarity(heads: Any) -> None:
    answer = _answer(_clustering(heads, [2, 1], _at(90, 80, 70)), _at(0))
    assert answer["LABEL"].tolist() == [["b"]]
    assert answer["MATCHES"].tolist() == [[0, 0]]


def test_tie_in_everything_goes_to_the_first_class_by_name(heads: Any) -> None:
    assert _answer(_clustering(heads, [1, 1, 1], _at(10, 10, 10)), _at(0))["LABEL"].tolist() == [["a"]]


def test_query_without_a_match_is_unknown_where_that_has_a_label(heads: Any) -> None:
    head = _clustering(heads, [1, 1], _at(60, 80), unknown_label="nobody")
    answer = _answer(head, _at(0, 60))
    assert answer["LABEL"].tolist() == [["nobody"], ["a"]]
    assert answer["PROBABILITY"][:, 0] == pytest.approx([0.5, 1], abs=1e-6)


def test_threshold_is_inclusive_and_each_querys_own(heads: Any) -> None:
    head = _clustering(heads, [1, 1], np.array([[1, 0], [0, 1]], np.float32))
    queries = np.array([[1, 0], [1, 0], [1, 0]], np.float32)
    thresholds = np.array([1, 0, THRESHOLD], np.float32)
    answer = head.answer(queries, np.zeros((3, 2), np.float32), thresholds)
    assert answer["MATCHES"].tolist() == [[1, 0], [1, 1], [1, 0]]


def test_threshold_in_force_is_the_requests_or_else_the_exported_one(heads: Any) -> None:
    parameters = sys.modules["parameters"]
    head = _clustering(heads, [1, 1], _at(0, 90), threshold=0.6)
    assert head.threshold_in_force(parameters.Given(-0.5)) == -0.5
    assert head.threshold_in_force(parameters.NotGiven()) == 0.6
    assert heads.ClassificationHead({"classes": ["x"], "neighbors": 1}).threshold_in_force(parameters.Given(0.5)) == 0


def test_neighbors_are_ranked_and_padded(heads: Any) -> None:
    head = _clustering(heads, [2, 1], _at(40, 10, 20))
    answer = _answer(head, _at(0))
    assert answer["NEIGHBOR"].tolist() == [["a/1", "b/0", "a/0", "", ""]]
    assert answer["NEIGHBOR_SIMILARITY"][0] == pytest.approx([*np.cos(np.deg2rad([10, 20, 40])), 0, 0], abs=1e-6)


def test_neighbors_of_equal_similarity_keep_their_order(heads: Any) -> None:
    head = _clustering(heads, [4, 3], _at(50, 10, 10, 30, 10, 10, 60), neighbors=3)
    assert _answer(head, _at(0))["NEIGHBOR"].tolist()[0][0] == "a/1"
    full = _clustering(heads, [4, 3], _at(50, 10, 10, 30, 10, 10, 60), neighbors=7)
    assert _answer(full, _at(0))["NEIGHBOR"].tolist() == [["a/1", "a/2", "b/0", "b/1", "a/3", "a/0", "b/2"]]


def test_similarity_does_not_depend_on_the_querys_norm_and_stays_within_one(heads: Any) -> None:
    rng = np.random.default_rng(0)
    base = rng.normal(size=(50, 512)).astype(np.float32)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    answer = _answer(_clustering(heads, [20, 30], base), base * np.float32(1e-3))
    assert answer["SCORES"].max() <= 1
    assert answer["NEIGHBOR_SIMILARITY"][:, 0] == pytest.approx(np.ones(50), abs=1e-6)


def test_query_of_norm_zero_has_finite_answers(heads: Any) -> None:
    answer = _answer(_clustering(heads, [1, 1], _at(0, 90)), np.zeros((1, 2), np.float32))
    assert answer["SCORES"].tolist() == [[0, 0]]


def test_classification_answers_with_probabilities_and_no_evidence(heads: Any) -> None:
    head = heads.ClassificationHead({"classes": ["x", "y"], "neighbors": 2})
    probabilities = np.array([[0.2, 0.8]], np.float32)
    answer = head.answer(np.zeros((1, 2), np.float32), probabilities, np.zeros(1, np.float32))
    assert answer["LABEL"].tolist() == [["y"]]
    assert answer["SCORES"].tolist() == [pytest.approx([0.2, 0.8])]
    assert head.constants["MATCHES"].values == (0, 0)
    assert head.constants["NEIGHBOR"].values == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("class_count", [2, 1000], ids="{} classes".format)
@pytest.mark.parametrize("base_images", [5000, 70_000], ids="{} base images".format)
def test_comparison_in_blocks_equals_the_plain_one(scoring: Any, base_images: int, class_count: int) -> None:
    rng = np.random.default_rng(base_images + class_count)
    base = scoring.normalize(rng.normal(size=(base_images, 24)).astype(np.float32))
    base[base_images // 2 :: 3] = base[: len(base[base_images // 2 :: 3])]  # equal ones, in blocks of their own
    starts = np.concatenate([[0], np.sort(rng.choice(np.arange(1, base_images), class_count - 1, replace=False))])
    queries = rng.normal(size=(40, 24)).astype(np.float32)
    thresholds = np.linspace(-1, 0.8, 40, dtype=np.float32)
    comparison = scoring.Comparer(base, starts).compare(queries, thresholds, neighbors=20)

    exact = (queries.astype(np.float64) / np.linalg.norm(queries, axis=1, keepdims=True)) @ base.T.astype(np.float64)
    for query, row in enumerate(exact):
        classes = np.split(row, starts[1:])
        assert comparison.scores[query] == pytest.approx([values.max() for values in classes], abs=1e-6)
        wanted = np.array([(values >= thresholds[query]).sum() for values in classes])
        unsure = np.array([(np.abs(values - thresholds[query]) < 1e-6).sum() for values in classes])
        assert (np.abs(comparison.matches[query] - wanted) <= unsure).all()
        best = np.argsort(-row, kind="stable")[:20]
        assert comparison.neighbor_similarities[query] == pytest.approx(row[best], abs=1e-6)
        assert row[comparison.neighbors[query]] == pytest.approx(row[best], abs=1e-6)
        similarities = comparison.neighbor_similarities[query]
        equal = np.flatnonzero(similarities[:-1] == similarities[1:])
        assert (comparison.neighbors[query][equal] < comparison.neighbors[query][equal + 1]).all()


@pytest.mark.parametrize(("base_images", "neighbors"), [(3, 5), (65, 1), (400, 5), (7000, 5), (7000, 300)])
def test_neighbors_are_those_of_a_plain_sort_whichever_queries_of_a_batch_have_ties(
    scoring: Any, base_images: int, neighbors: int
) -> None:
    rng = np.random.default_rng(0)
    base = rng.standard_normal((base_images, 16), dtype=np.float32)
    base[base_images // 2] = base[-1] = base[0]
    base = scoring.normalize(base)
    queries = rng.standard_normal((40, 16), dtype=np.float32)
    queries[3], queries[4] = base[0], 0  # near three equal base images, and as near to one as to any other
    comparison = scoring.Comparer(base, np.array([0, 1])).compare(queries, np.zeros(40, np.float32), neighbors)
    similarities = scoring.normalize(queries) @ base.T
    for row, found in enumerate(comparison.neighbors):
        expected = np.sort(similarities[row])[::-1][: len(found)]
        np.testing.assert_allclose(similarities[row, found], expected, atol=1e-6)
    assert comparison.neighbors[3, :3].tolist()[:neighbors] == [0, base_images // 2, base_images - 1][:neighbors]
    assert comparison.neighbors[4].tolist() == list(range(min(neighbors, base_images)))


def test_classes_that_begin_and_end_with_a_block_are_kept_apart(scoring: Any) -> None:
    rows = scoring.BLOCK_ROWS
    base = np.zeros((2 * rows + 1, 2), np.float32)
    base[:, 1] = 1
    base[[0, rows, 2 * rows], 0], base[[0, rows, 2 * rows], 1] = 1, 0
    starts = np.array([0, 1, rows, 2 * rows])
    comparison = scoring.Comparer(base, starts).compare(
        np.array([[1, 0]], np.float32), np.full(1, 0.5, np.float32), neighbors=4
    )
    assert comparison.matches.tolist() == [[1, 0, 1, 1]]
    assert comparison.scores.tolist() == [[1, 0, 1, 1]]
    assert comparison.neighbors.tolist() == [[0, rows, 2 * rows, 1]]


def test_base_set_is_mapped_and_names_its_images(heads: Any, tmp_path: Path) -> None:
    names = [f"{name}/{number}.jpg" for name in ("a", "\u00e4\u00df") for number in range(3)]
    embeddings = np.eye(6, dtype=np.float32)
    np.save(tmp_path / "base_embeddings.npy", embeddings)
    (tmp_path / "base_images.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    (tmp_path / "base_class_sizes.json").write_text("[3, 3]")
    base = heads.load_base_set(tmp_path)
    assert isinstance(base.embeddings.base, np.memmap), "it must not be read into memory"
    assert base.class_starts.tolist() == [0, 3]
    assert base.names(np.array([[5, 0], [2, 3]])).tolist() == [[names[5], names[0]], [names[2], names[3]]]
