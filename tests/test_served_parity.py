"""The server's answers equal plain PyTorch's, at full and small size, in both modes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from inference_client import Classify
from tests import reference
from tests.conftest import LABELS, Trained

TOLERANCE = 1e-4
THRESHOLD = 0.4  # of the exported clustering repositories


@pytest.mark.parametrize(
    ("server", "trained"),
    [
        pytest.param("full_classification_server", "full", id="S384"),
        pytest.param("classification_server", "small", id="S64"),
    ],
)
def test_served_classification_equals_plain_pytorch(
    server: str, trained: str, query_images: list[Path], request: pytest.FixtureRequest
) -> None:
    trained_resources = request.getfixturevalue(trained)
    expected = reference.classify(trained_resources.state, LABELS, query_images, trained_resources.image_size)
    results = _classify(request.getfixturevalue(server).url, query_images)
    assert len({row["Label"] for row in expected}) > 1, "the images must tell the classes apart"
    for entry, wanted in zip(results, expected, strict=True):
        assert entry["Label"] == wanted["Label"]
        assert entry["Probability"] == pytest.approx(wanted["Probability"], abs=TOLERANCE)
        assert entry["Scores"] == pytest.approx(wanted["Scores"], abs=TOLERANCE)
        assert list(entry["Scores"]) == list(LABELS)
        assert entry["Matches"] == {}
        assert entry["Neighbors"] == []


@pytest.mark.parametrize("threshold", ["exported", "median"])
@pytest.mark.parametrize(
    ("server", "trained"),
    [
        pytest.param("full_clustering_server", "full", id="S384"),
        pytest.param("clustering_server", "small", id="S64"),
    ],
)
def test_served_clustering_equals_plain_pytorch(
    server: str,
    trained: str,
    threshold: str,
    query_images: list[Path],
    base_data: dict[str, list[Path]],
    request: pytest.FixtureRequest,
) -> None:
    trained_resources = request.getfixturevalue(trained)
    queries = query_images[::2] if trained == "full" else query_images
    embed = _embedder(trained_resources)
    used = THRESHOLD if threshold == "exported" else embed.median_similarity(base_data, queries)
    expected = embed.cluster(base_data, queries, used)
    results = _classify(
        request.getfixturevalue(server).url, queries, sim_thres=None if threshold == "exported" else used
    )
    if threshold == "median":
        counts = {count for row in expected for count in row["Matches"].values()}
        assert len(counts) > 2, "some base images must match, others not"
    for entry, wanted in zip(results, expected, strict=True):
        assert entry["Scores"] == pytest.approx(wanted["Scores"], abs=TOLERANCE)
        assert list(entry["Scores"]) == sorted(base_data)
        near = [abs(value - used) < TOLERANCE for values in wanted["Similarities"].values() for value in values]
        if not any(near):
            assert entry["Matches"] == wanted["Matches"]
            assert entry["Label"] == wanted["Label"]
            assert entry["Probability"] == pytest.approx(wanted["Probability"], abs=TOLERANCE)
        neighbors = [(row["Similarity"], row["Image"]) for row in entry["Neighbors"]]
        assert [value for value, _ in neighbors] == pytest.approx(
            [value for value, _ in wanted["Neighbors"][:5]], abs=TOLERANCE
        )
        similarity_of = {name: value for value, name in wanted["Neighbors"]}
        assert all(similarity_of[name] == pytest.approx(value, abs=TOLERANCE) for value, name in neighbors)


@functools.cache
def _embedder(trained: Trained) -> reference.Embedder:
    return reference.Embedder(trained.state, trained.image_size)


def _classify(url: str, files: list[Path], **options: Any) -> list[dict[str, Any]]:
    with Classify(url, details=True) as classify:
        results, status = classify(files, **options)
    assert status == 200, results
    assert isinstance(results, list)
    return results
