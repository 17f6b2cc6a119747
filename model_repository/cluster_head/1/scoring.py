"""Similarities of query embeddings with the base set, and the answers that follow from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Float32 = npt.NDArray[np.float32]
    Int32 = npt.NDArray[np.int32]
    Index = npt.NDArray[np.intp]

# Base embeddings in one matrix product, 8 MiB of D = 512, and in one reduction of what several products found: larger
# products leave the cache, smaller reductions spend their time in numpy's calls.
PRODUCT_ROWS = 4096
BLOCK_ROWS = 8 * PRODUCT_ROWS


class Comparison(NamedTuple):
    """What the comparison of N queries with the base set found."""

    matches: Int32  # [N, C], base images of the class at or above the threshold
    scores: Float32  # [N, C], highest similarity in the class, -1 to 1
    neighbors: Index  # [N, K], rows of the base set, most similar first, equal ones in their order
    neighbor_similarities: Float32  # [N, K], -1 to 1


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


def compare(queries: Float32, base: Float32, class_starts: Index, thresholds: Float32, neighbors: int) -> Comparison:
    """Compare query embeddings with the base set: count each class's matches, find the most similar base images.

    The similarity is the cosine, <q, b> / (|q| |b|). The base set is read once, in blocks, so that one larger than
    memory can be mapped from its file.

    Args:
        queries: Query embeddings, float32 [N, D], of any norm; the similarities of one of norm zero are zero.
        base: L2-normalized base embeddings, float32 [B, D], those of one class side by side.
        class_starts: First row of each class, ascending integers [C] from 0; no class is empty.
        thresholds: Each query's lowest similarity that is a match, inclusive, float32 [N], -1 to 1.
        neighbors: Most similar base images wanted, at least 1.

    Returns:
        The comparison; K is ``min(neighbors, B)``.

    Source:
        Thresholded open-set identification: Phillips, Grother, Micheals, "Evaluation Methods in Face Recognition",
        Handbook of Face Recognition, Springer 2005, ch. 14 (gallery = base set, probe = query).

    >>> base = np.float32([[1, 0], [0.8, 0.6], [0, 1]])
    >>> found = compare(np.float32([[2, 0]]), base, np.array([0, 2]), np.float32([0.75]), neighbors=2)
    >>> found.matches.tolist(), found.scores.tolist(), found.neighbors.tolist()
    ([[2, 0]], [[1.0, 0.0]], [[0, 1]])
    """
    unit = normalize(queries)
    # Rounding takes similarities a little beyond -1 and 1, which only the results are relieved of.
    lowest = np.where(thresholds <= -1, -np.inf, thresholds).astype(np.float32)[:, None]
    matches = np.zeros((len(unit), len(class_starts)), np.int32)
    scores = np.full(matches.shape, -1, np.float32)
    nearest = _Nearest(len(unit), min(neighbors, len(base)))
    buffer = np.empty((len(unit), min(BLOCK_ROWS, len(base))), np.float32)
    for start in range(0, len(base), BLOCK_ROWS):
        similarities = _products(unit, base[start : start + BLOCK_ROWS], buffer)
        first, end = np.searchsorted(class_starts, [start + 1, start + similarities.shape[1]]) - [1, 0]
        cuts = np.maximum(class_starts[first:end] - start, 0)
        matches[:, first:end] += np.add.reduceat(similarities >= lowest, cuts, axis=1, dtype=np.int32)
        highest = np.maximum.reduceat(similarities, cuts, axis=1)
        np.maximum(scores[:, first:end], highest, out=scores[:, first:end])
        nearest.update(similarities, start)
    return Comparison(
        matches=matches,
        scores=np.minimum(scores, 1, out=scores),
        neighbors=nearest.rows,
        neighbor_similarities=np.clip(nearest.similarities, -1, 1),
    )


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


def _products(unit: Float32, block: Float32, buffer: Float32) -> Float32:
    for start in range(0, len(block), PRODUCT_ROWS):
        part = block[start : start + PRODUCT_ROWS]
        np.matmul(unit, part.T, out=buffer[:, start : start + len(part)])
    return buffer[:, : len(block)]


class _Nearest:
    """The ``count`` highest similarities of each query so far, and their rows; equal ones in the order of rows."""

    def __init__(self, queries: int, count: int) -> None:
        self.rows = np.zeros((queries, count), np.intp)
        self.similarities = np.full((queries, count), -np.inf, np.float32)

    def update(self, similarities: Float32, start: int) -> None:
        """Take in a block, float32 [N, rows], whose first row is ``start``."""
        # A base image that equals the last of the best comes after it, so only a higher similarity displaces it.
        for query in np.flatnonzero(similarities.max(axis=1) > self.similarities[:, -1]):
            self._take(query, similarities[query], start)

    def _take(self, query: np.intp, similarities: Float32, start: int) -> None:
        count = self.rows.shape[1]
        columns = np.flatnonzero(similarities > self.similarities[query, -1])
        if len(columns) > count:
            lowest = np.partition(similarities[columns], -count)[-count]
            columns = columns[similarities[columns] >= lowest]
        rows = np.concatenate([self.rows[query], columns + start])
        values = np.concatenate([self.similarities[query], similarities[columns]])
        best = np.argsort(-values, kind="stable")[:count]
        self.rows[query], self.similarities[query] = rows[best], values[best]
