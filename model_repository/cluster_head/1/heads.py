"""The two ways to answer: with the network's probabilities, or by the base images that a query resembles."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from base_set import BaseSet, load_base_set
from parameters import Given
from scoring import Comparer, best_class

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from parameters import Threshold

    Float32 = npt.NDArray[np.float32]
    Int32 = npt.NDArray[np.int32]


class Answer(NamedTuple):
    """The answers to N queries; the names are the model's outputs in lower case."""

    label: npt.NDArray[np.object_]  # [N, 1]
    probability: Float32  # [N, 1]
    classes: npt.NDArray[np.object_]  # [N, C]
    scores: Float32  # [N, C]
    matches: Int32  # [N, C]
    neighbor: npt.NDArray[np.object_]  # [N, K], padded with ""
    neighbor_similarity: Float32  # [N, K], padded with 0


class ClassificationHead:
    """Answers with the classifier's probabilities.

    Args:
        settings: ``classes`` (names in index order) and ``neighbors`` (K).
    """

    mode = "classification"

    def __init__(self, settings: dict[str, Any]) -> None:
        self._classes = np.array(settings["classes"], dtype=np.object_)
        self._neighbors: int = settings["neighbors"]

    def threshold_in_force(self, _wanted: Threshold) -> float:
        """Return 0: thresholds mean nothing here."""
        return 0.0

    def answer(self, embeddings: Float32, probabilities: Float32, thresholds: Float32) -> Answer:
        """Label N queries with their most probable classes.

        Args:
            embeddings: float32 [N, D]; not used.
            probabilities: float32 [N, C'], 0 to 1.
            thresholds: float32 [N]; not used.
        """
        queries = len(probabilities)
        return Answer(
            label=self._classes[probabilities.argmax(axis=1)].reshape(-1, 1),
            probability=probabilities.max(axis=1, keepdims=True),
            classes=np.broadcast_to(self._classes, (queries, len(self._classes))),
            scores=probabilities,
            matches=np.zeros(probabilities.shape, np.int32),
            neighbor=np.full((queries, self._neighbors), "", np.object_),
            neighbor_similarity=np.zeros((queries, self._neighbors), np.float32),
        )

    def classes_at(self, embeddings: Float32, probabilities: Float32, thresholds: Float32) -> Int32:
        """Return the class index of each query's label, int32 [N, T], which is the same at all thresholds [N, T]."""
        classes: Int32 = np.broadcast_to(probabilities.argmax(axis=1)[:, None], thresholds.shape).astype(np.int32)
        return classes


class ClusteringHead:
    """Answers with the class whose base images resemble the query.

    Args:
        settings: ``classes`` (base classes, sorted by name), ``threshold``, ``unknown_label`` (text or None) and
            ``neighbors`` (K).
        base: The base set, its classes in the order of ``classes``.
    """

    mode = "clustering"

    def __init__(self, settings: dict[str, Any], base: BaseSet) -> None:
        self._classes = np.array(settings["classes"], dtype=np.object_)
        self._threshold: float = settings["threshold"]
        self._unknown_label: str | None = settings["unknown_label"]
        self._neighbors: int = settings["neighbors"]
        self._base = base
        self._comparer = Comparer(base.embeddings, base.class_starts)

    def threshold_in_force(self, wanted: Threshold) -> float:
        """Return the threshold that a request names, or the exported one."""
        return wanted.value if isinstance(wanted, Given) else self._threshold

    def answer(self, embeddings: Float32, probabilities: Float32, thresholds: Float32) -> Answer:
        """Label N queries by their matches in the base set.

        Args:
            embeddings: float32 [N, D], finite.
            probabilities: float32 [N, C']; not used.
            thresholds: Lowest similarity that is a match, float32 [N], -1 to 1.
        """
        queries = len(embeddings)
        found = self._comparer.compare(embeddings, thresholds, self._neighbors)
        chosen = best_class(found.matches, found.scores).reshape(-1, 1)
        label = self._classes[chosen]
        if self._unknown_label is not None:
            label[found.matches.max(axis=1) == 0] = self._unknown_label
        padding = ((0, 0), (0, self._neighbors - found.neighbors.shape[1]))
        return Answer(
            label=label,
            probability=np.take_along_axis(found.scores, chosen, axis=1),
            classes=np.broadcast_to(self._classes, (queries, len(self._classes))),
            scores=found.scores,
            matches=found.matches,
            neighbor=np.pad(self._base.names(found.neighbors), padding, constant_values=""),
            neighbor_similarity=np.pad(found.neighbor_similarities, padding),
        )

    def classes_at(self, embeddings: Float32, probabilities: Float32, thresholds: Float32) -> Int32:
        """Find the class that wins at each of T thresholds.

        Args:
            embeddings: float32 [N, D], finite.
            probabilities: float32 [N, C']; not used.
            thresholds: float32 [N, T], -1 to 1.

        Returns:
            Class indices, int32 [N, T]; -1 where no base image matches.
        """
        return self._comparer.classes_at(embeddings, thresholds)


def load_head(folder: Path) -> ClassificationHead | ClusteringHead:
    """Read the head that the export wrote into a version folder of ``cluster_head``.

    ``settings.json`` holds the settings of either head; clustering mode has a base set beside it.

    Args:
        folder: The version folder.
    """
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    if settings["mode"] == ClassificationHead.mode:
        return ClassificationHead(settings)
    return ClusteringHead(settings, load_base_set(folder))
