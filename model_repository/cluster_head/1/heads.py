"""The two ways to answer: by the network's probabilities, or by the base images that resemble the query."""

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


class Row(NamedTuple):
    """The row of an output that is the same for every query."""

    values: tuple[Any, ...]
    dtype: type


class ClassificationHead:
    """Answers with the network's probabilities.

    Args:
        settings: ``classes`` (names in index order) and ``neighbors`` (K).

    Attributes:
        constants: The outputs that are the same for every query, by name: ``CLASSES``, and no evidence.
    """

    mode = "classification"

    def __init__(self, settings: dict[str, Any]) -> None:
        self._classes = np.array(settings["classes"], dtype=np.object_)
        neighbors: int = settings["neighbors"]
        self.constants = {
            "CLASSES": Row(tuple(settings["classes"]), np.object_),
            "MATCHES": Row((0,) * len(self._classes), np.int32),
            "NEIGHBOR": Row(("",) * neighbors, np.object_),
            "NEIGHBOR_SIMILARITY": Row((0.0,) * neighbors, np.float32),
        }

    def threshold_in_force(self, _wanted: Threshold) -> float:
        """Return 0: classification mode has no threshold."""
        return 0.0

    def answer(self, embeddings: Float32, probabilities: Float32, thresholds: Float32) -> dict[str, Any]:
        """Label each of N queries with its most probable class.

        Args:
            embeddings: float32 [N, D]; not used.
            probabilities: float32 [N, C'], 0 to 1.
            thresholds: float32 [N]; not used.

        Returns:
            ``LABEL``, texts [N, 1]; ``PROBABILITY``, float32 [N, 1]; ``SCORES``, float32 [N, C'].
        """
        return {
            "LABEL": self._classes[probabilities.argmax(axis=1)].reshape(-1, 1),
            "PROBABILITY": probabilities.max(axis=1, keepdims=True),
            "SCORES": probabilities,
        }

    def classes_at(self, embeddings: Float32, probabilities: Float32, thresholds: Float32) -> Int32:
        """Return the class index of each query's label, int32 [N, T]: the same at all T thresholds."""
        classes: Int32 = np.broadcast_to(probabilities.argmax(axis=1)[:, None], thresholds.shape).astype(np.int32)
        return classes


class ClusteringHead:
    """Answers with the class whose base images resemble the query.

    Args:
        settings: ``classes`` (names of the base set's classes, sorted), ``threshold``, ``unknown_label`` (text or
            None) and ``neighbors`` (K).
        base: The base set, with its classes in the order of ``classes``.

    Attributes:
        constants: The outputs that are the same for every query, by name: ``CLASSES``.
    """

    mode = "clustering"

    def __init__(self, settings: dict[str, Any], base: BaseSet) -> None:
        self._classes = np.array(settings["classes"], dtype=np.object_)
        self._threshold: float = settings["threshold"]
        self._unknown_label: str | None = settings["unknown_label"]
        self._neighbors: int = settings["neighbors"]
        self._base = base
        self._comparer = Comparer(base.embeddings, base.class_starts)
        self.constants = {"CLASSES": Row(tuple(settings["classes"]), np.object_)}

    def threshold_in_force(self, wanted: Threshold) -> float:
        """Return the threshold that a request names, or the exported one."""
        return wanted.value if isinstance(wanted, Given) else self._threshold

    def answer(self, embeddings: Float32, probabilities: Float32, thresholds: Float32) -> dict[str, Any]:
        """Label N queries by the base images that match.

        Args:
            embeddings: float32 [N, D], finite.
            probabilities: float32 [N, C']; not used.
            thresholds: Lowest similarity that is a match, float32 [N], -1 to 1.

        Returns:
            ``LABEL``, texts [N, 1]; ``PROBABILITY``, float32 [N, 1]; ``SCORES``, float32 [N, C]; ``MATCHES``, int32
            [N, C]; ``NEIGHBOR``, texts [N, K], padded with ""; ``NEIGHBOR_SIMILARITY``, float32 [N, K], padded with 0.
        """
        matches, scores, neighbors, similarities = self._comparer.compare(embeddings, thresholds, self._neighbors)
        winners = best_class(matches, scores)
        label = self._classes[winners]
        if self._unknown_label is not None:
            label[matches.max(axis=1) == 0] = self._unknown_label
        names = self._base.names(neighbors)
        if missing := self._neighbors - neighbors.shape[1]:
            names = np.pad(names, ((0, 0), (0, missing)), constant_values="")
            similarities = np.pad(similarities, ((0, 0), (0, missing)))
        return {
            "LABEL": label.reshape(-1, 1),
            "PROBABILITY": scores[np.arange(len(scores)), winners].reshape(-1, 1),
            "SCORES": scores,
            "MATCHES": matches,
            "NEIGHBOR": names,
            "NEIGHBOR_SIMILARITY": similarities,
        }

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
    """Read the head of a version folder: its settings, and in clustering mode its base set.

    Args:
        folder: The version folder.
    """
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    if settings["mode"] == ClassificationHead.mode:
        return ClassificationHead(settings)
    return ClusteringHead(settings, load_base_set(folder))
