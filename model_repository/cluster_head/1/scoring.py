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
BLOCK_ROWS = 16 * PRODUCT_ROWS
COMB_ROWS = 64  # evenly spaced ones, of which the highest similarity is kept: the K nearest lie in the K highest combs
QUERIES_AT_A_TIME = 32  # whose similarities with the whole base set are in memory


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


class Comparer:
    """Compares query embeddings with a base set: counts each class's matches, finds the most similar base images.

    The similarity is the cosine, <q, b> / (|q| |b|). The base set is read once, in blocks, so that one larger than
    memory can be mapped from its file. Memory for the similarities, float32 [N, B], is kept from call to call; so one
    object is for one thread.

    Args:
        base: L2-normalized base embeddings, float32 [B, D], those of one class side by side.
        class_starts: First row of each class, ascending integers [C] from 0; no class is empty.

    Source:
        Thresholded open-set identification: Phillips, Grother, Micheals, "Evaluation Methods in Face Recognition",
        Handbook of Face Recognition, Springer 2005, ch. 14 (gallery = base set, probe = query).

    >>> comparer = Comparer(np.float32([[1, 0], [0.8, 0.6], [0, 1]]), np.array([0, 2]))
    >>> found = comparer.compare(np.float32([[2, 0]]), np.float32([0.75]), neighbors=2)
    >>> found.matches.tolist(), found.scores.tolist(), found.neighbors.tolist()
    ([[2, 0]], [[1.0, 0.0]], [[0, 1]])
    """

    def __init__(self, base: Float32, class_starts: Index) -> None:
        self._base = base
        self._class_count = len(class_starts)
        self._blocks = [_block(class_starts, start, len(base)) for start in range(0, len(base), BLOCK_ROWS)]
        self._combs = np.concatenate([_combs(start, len(base)) for start in range(0, len(base), BLOCK_ROWS)])
        self._similarities = np.empty((0, 0), np.float32)

    def compare(self, queries: Float32, thresholds: Float32, neighbors: int) -> Comparison:
        """Compare N queries.

        Args:
            queries: Query embeddings, float32 [N, D], of any norm; the similarities of one of norm zero are zero.
            thresholds: Each query's lowest similarity that is a match, inclusive, float32 [N], -1 to 1.
            neighbors: Most similar base images wanted, at least 1.

        Returns:
            The comparison; K is ``min(neighbors, B)``.
        """
        unit = normalize(queries)
        # Rounding takes similarities a little beyond -1 and 1, which only the results are relieved of.
        lowest = np.where(thresholds <= -1, -np.inf, thresholds).astype(np.float32)[:, None]
        parts = [
            self._compare(unit[start : start + QUERIES_AT_A_TIME], lowest[start : start + QUERIES_AT_A_TIME], neighbors)
            for start in range(0, len(unit), QUERIES_AT_A_TIME)
        ]
        return parts[0] if len(parts) == 1 else Comparison(*map(np.concatenate, zip(*parts, strict=True)))

    def _compare(self, unit: Float32, lowest: Float32, neighbors: int) -> Comparison:
        if len(self._similarities) < len(unit):
            # Columns beyond the base set complete its last combs.
            self._similarities = np.full((len(unit), self._combs.max() + 1), -np.inf, np.float32)
        similarities = self._similarities[: len(unit)]
        matches = np.zeros((len(unit), self._class_count), np.int32)
        scores = np.full(matches.shape, -1, np.float32)
        tops = []
        for rows, classes, class_cuts in self._blocks:
            for start in range(rows.start, rows.stop, PRODUCT_ROWS):
                part = slice(start, min(start + PRODUCT_ROWS, rows.stop))
                np.matmul(unit, self._base[part].T, out=similarities[:, part])
            block = similarities[:, rows]
            highest = np.maximum.reduceat(block, class_cuts, axis=1)
            np.maximum(scores[:, classes], highest, out=scores[:, classes])
            if (highest >= lowest).any():
                matches[:, classes] += np.add.reduceat(block >= lowest, class_cuts, axis=1, dtype=np.int32)
            combed = similarities[:, rows.start : _padded(rows.stop)].reshape(len(unit), COMB_ROWS, -1)
            tops.append(combed.max(axis=1))
        count = min(neighbors, len(self._base))
        neighbor_rows = nearest(similarities, np.concatenate(tops, axis=1), self._combs, count)
        return Comparison(
            matches=matches,
            scores=np.minimum(scores, 1, out=scores),
            neighbors=neighbor_rows,
            neighbor_similarities=np.clip(np.take_along_axis(similarities, neighbor_rows, axis=1), -1, 1),
        )


def _block(class_starts: Index, start: int, base_images: int) -> tuple[slice, slice, Index]:
    """Cut a block out of the base set: its rows, the classes in them, and where these begin within it."""
    stop = min(start + BLOCK_ROWS, base_images)
    first, end = np.searchsorted(class_starts, [start + 1, stop]) - [1, 0]
    return slice(start, stop), slice(first, end), np.maximum(class_starts[first:end] - start, 0)


def _combs(start: int, base_images: int) -> Index:
    """List the rows of each comb of a block, integers [combs, COMB_ROWS], ascending."""
    stop = _padded(min(start + BLOCK_ROWS, base_images))
    return np.arange(start, stop).reshape(COMB_ROWS, -1).T


def _padded(rows: int) -> int:
    return -(-rows // COMB_ROWS) * COMB_ROWS


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


def nearest(similarities: Float32, tops: Float32, combs: Index, count: int) -> Index:
    """Find the most similar base images of each query.

    Args:
        similarities: float32 [N, at least B], minus infinity beyond B.
        tops: Highest similarity of each comb, float32 [N, combs].
        combs: Columns of each comb, integers [combs, COMB_ROWS]; together they are all columns.
        count: Base images wanted, 1 to B.

    Returns:
        Columns, integers [N, count], most similar first, equal ones in their order.
    """
    columns = np.broadcast_to(np.arange(similarities.shape[1]), similarities.shape)
    if tops.shape[1] > count:
        high = tops >= np.partition(tops, -count, axis=1)[:, -count:][:, :1]
        if high.sum() == len(high) * count:  # otherwise combs tie, and any of them may hold a nearest one
            chosen = combs[np.nonzero(high)[1]].reshape(len(high), -1)
            columns = np.sort(chosen, axis=1)
    values = np.take_along_axis(similarities, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(columns, order, axis=1)
