"""Similarities of query embeddings with the base set, and the answers that follow from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Float32 = npt.NDArray[np.float32]
    Int32 = npt.NDArray[np.int32]
    Index = npt.NDArray[np.intp]


def normalize(embeddings: Float32) -> Float32:
    """Divide each embedding by its L2 norm.

    Args:
        embeddings: float32 [N, D].

    Returns:
        float32 [N, D] of norm 1; an embedding of norm zero stays zero.
    """
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    normalized: Float32 = np.divide(embeddings, norms, out=np.zeros_like(embeddings), where=norms > 0)
    return normalized


def cosine_similarities(queries: Float32, base: Float32) -> Float32:
    """Compare every query embedding with every base embedding: <q, b> / (|q| |b|).

    Args:
        queries: Query embeddings, float32 [N, D], of any norm; the similarities of one of norm zero are zero.
        base: L2-normalized base embeddings, float32 [B, D].

    Returns:
        float32 [N, B], -1 to 1, larger is more alike.
    """
    similarities: Float32 = normalize(queries) @ base.T
    return np.clip(similarities, -1, 1, out=similarities)


def score_by_class(similarities: Float32, class_starts: Index, thresholds: Float32) -> tuple[Int32, Float32]:
    """Count every class's matches with each query and find its highest similarity.

    Args:
        similarities: float32 [N, B], base images of one class side by side.
        class_starts: First column of each class, ascending integers [C] from 0; no class is empty.
        thresholds: Each query's lowest similarity that is a match, inclusive, float32 [N, 1].

    Returns:
        ``matches``, int32 [N, C]: base images of the class at or above the threshold.
        ``scores``, float32 [N, C]: highest similarity in the class, -1 to 1.

    Source:
        Thresholded open-set identification: Phillips, Grother, Micheals, "Evaluation Methods in Face Recognition",
        Handbook of Face Recognition, Springer 2005, ch. 14 (gallery = base set, probe = query).

    >>> matches, scores = score_by_class(np.float32([[1, 0.8, 0]]), np.array([0, 2]), np.float32([[0.75]]))
    >>> matches.tolist(), scores.tolist()
    ([[2, 0]], [[1.0, 0.0]])
    """
    matches = np.add.reduceat(similarities >= thresholds, class_starts, axis=1, dtype=np.int32)
    scores = np.maximum.reduceat(similarities, class_starts, axis=1)
    return matches, scores


def best_class(matches: Int32, scores: Float32) -> Index:
    """Choose each query's class: most matches, then highest similarity, then first by name.

    Args:
        matches: int32 [N, C].
        scores: float32 [N, C], -1 to 1.

    Returns:
        Class indices, integers [N].

    >>> best_class(np.int32([[1, 1, 0]]), np.float32([[0.8, 0.9, 1.0]])).tolist()
    [1]
    """
    most = matches == matches.max(axis=1, keepdims=True)
    chosen: Index = np.where(most, scores, -np.inf).argmax(axis=1)
    return chosen


def nearest(similarities: Float32, count: int) -> Index:
    """Rank the most similar base images of each query, best first, equal ones in their order.

    Args:
        similarities: float32 [N, B].
        count: Neighbors wanted, at least 1.

    Returns:
        Columns, integers [N, min(count, B)].

    >>> nearest(np.float32([[0.1, 0.9, 0.5]]), 2).tolist()
    [[1, 2]]
    """
    base_images = similarities.shape[1]
    candidates = np.tile(np.arange(base_images), (len(similarities), 1))
    if count < base_images:
        candidates = np.sort(np.argpartition(-similarities, count - 1, axis=1)[:, :count], axis=1)
    order = np.argsort(-np.take_along_axis(similarities, candidates, axis=1), axis=1, kind="stable")
    return np.take_along_axis(candidates, order, axis=1)
