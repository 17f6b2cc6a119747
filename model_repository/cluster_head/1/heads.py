"""The two ways to answer: by the network's classifier, or by the base images that a query resembles."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scoring import best_class, cosine_similarities, nearest, score_by_class

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Float32 = npt.NDArray[np.float32]


class Answer(NamedTuple):
    """What N queries are answered; the names are the model's outputs in lower case."""

    label: npt.NDArray[np.object_]  # [N, 1]
    probability: Float32  # [N, 1]
    classes: npt.NDArray[np.object_]  # [N, C]
    scores: Float32  # [N, C]
    matches: npt.NDArray[np.int32]  # [N, C]
    neighbor: npt.NDArray[np.object_]  # [N, K], padded with ""
    neighbor_similarity: Float32  # [N, K], padded with 0


class ClassificationHead:
    """Answers with the classifier's probabilities.

    Args:
        settings: ``classes`` (names in index order) and ``neighbors`` (K).
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._classes = np.array(settings["classes"], dtype=np.object_)
        self._neighbors: int = settings["neighbors"]

    def answer(self, embeddings: Float32, probabilities: Float32, thresholds: Float32 | None = None) -> Answer:
        """Label N queries with their most probable classes.

        Args:
            embeddings: float32 [N, D]; not used.
            probabilities: float32 [N, C'], 0 to 1.
            thresholds: Not used.
        """
        queries = len(probabilities)
        return Answer(
            label=self._classes[probabilities.argmax(axis=1)].reshape(-1, 1),
            probability=probabilities.max(axis=1, keepdims=True),
            classes=np.tile(self._classes, (queries, 1)),
            scores=probabilities,
            matches=np.zeros(probabilities.shape, np.int32),
            neighbor=np.full((queries, self._neighbors), "", np.object_),
            neighbor_similarity=np.zeros((queries, self._neighbors), np.float32),
        )


class ClusteringHead:
    """Answers with the class whose base images resemble the query.

    Args:
        settings: ``classes`` (base classes, sorted by name), ``threshold``, ``unknown_label`` (text or None) and
            ``neighbors`` (K).
        images: Names of the B base images, ``class/file name``, one class after another in the order of ``classes``.
        class_sizes: Number of base images of each class.
        embeddings: L2-normalized base embeddings, float32 [B, D], in the order of ``images``.
    """

    def __init__(
        self, settings: dict[str, Any], images: list[str], class_sizes: list[int], embeddings: Float32
    ) -> None:
        self._classes = np.array(settings["classes"], dtype=np.object_)
        self._threshold = np.float32(settings["threshold"])
        self._unknown_label: str | None = settings["unknown_label"]
        self._neighbors: int = settings["neighbors"]
        self._images = np.array(images, dtype=np.object_)
        self._embeddings = embeddings
        self._class_starts = np.cumsum([0, *class_sizes[:-1]])

    def answer(self, embeddings: Float32, probabilities: Float32, thresholds: Float32) -> Answer:
        """Label N queries by their matches in the base set.

        Args:
            embeddings: float32 [N, D], finite.
            probabilities: Not used.
            thresholds: Lowest similarity that is a match, float32 [N], -1 to 1; NaN stands for the exported one.
        """
        queries = len(embeddings)
        thresholds = np.where(np.isnan(thresholds), self._threshold, thresholds).reshape(-1, 1)
        similarities = cosine_similarities(embeddings, self._embeddings)
        matches, scores = score_by_class(similarities, self._class_starts, thresholds)
        chosen = best_class(matches, scores).reshape(-1, 1)
        label = self._classes[chosen]
        probability = np.take_along_axis(scores, chosen, axis=1)
        if self._unknown_label is not None:
            unknown = matches.max(axis=1) == 0
            label[unknown] = self._unknown_label
        columns = nearest(similarities, self._neighbors)
        padding = ((0, 0), (0, self._neighbors - columns.shape[1]))
        return Answer(
            label=label,
            probability=probability,
            classes=np.tile(self._classes, (queries, 1)),
            scores=scores,
            matches=matches,
            neighbor=np.pad(self._images[columns], padding, constant_values=""),
            neighbor_similarity=np.pad(np.take_along_axis(similarities, columns, axis=1), padding),
        )


def load_head(folder: Path) -> ClassificationHead | ClusteringHead:
    """Read the head that the export wrote into a version folder of ``cluster_head``.

    ``settings.json`` holds the settings of either head; ``base_images.json`` (names and class sizes) and
    ``base_embeddings.npy`` belong to clustering mode.

    Args:
        folder: The version folder.
    """
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    if settings["mode"] == "classification":
        return ClassificationHead(settings)
    base = json.loads((folder / "base_images.json").read_text(encoding="utf-8"))
    embeddings = np.load(folder / "base_embeddings.npy", mmap_mode="r")
    return ClusteringHead(settings, base["images"], base["class_sizes"], embeddings)
