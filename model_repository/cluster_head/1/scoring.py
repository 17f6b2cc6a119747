"""Similarities of query embeddings with the base set, and the matches, neighbors and classes that follow from them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Float32 = npt.NDArray[np.float32]
    Int32 = npt.NDArray[np.int32]
    Index = npt.NDArray[np.intp]
    _Block = tuple[slice, slice, Index]

# Base embeddings in one matrix product, few enough for the cache (8 MiB for D = 512), and in one reduction over several
# products, many enough to outweigh numpy's calls. Threads share the blocks.
PRODUCT_ROWS = 4096
BLOCK_ROWS = 4 * PRODUCT_ROWS
# A comb is this many evenly spaced rows of the base set. The K nearest base images lie in the K combs with the highest
# similarities, so only these combs are searched.
COMB_ROWS = 64
# Queries in one matrix product: the more, the faster, as long as their similarities with the whole base set fit.
FEWEST_QUERIES = 32
SIMILARITIES = 2**24


class Comparison(NamedTuple):
    """The result of comparing N queries with the base set."""

    matches: Int32  # [N, C], number of the class's base images at or above the threshold
    scores: Float32  # [N, C], highest similarity in the class, -1 to 1
    neighbors: Index  # [N, K], rows of the base set, most similar first, ties in the base set's order
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

    The similarity is the cosine, <q, b> / (|q| |b|). The base set is read block by block, so it may be larger than
    memory if it is mapped from its file. Calls share the memory for the similarities, float32 [N, B], so use an object
    in one thread only.

    Args:
        base: L2-normalized base embeddings, float32 [B, D], sorted by class.
        class_starts: First row of each class, ascending integers [C] from 0; no class is empty.

    Source:
        Thresholded open-set identification: Phillips, Grother, Micheals, "Evaluation Methods in Face Recognition",
        Handbook of Face Recognition, Springer 2005, ch. 14 (gallery = base set, probe = query).

    >>> comparer = Comparer(np.float32([[1, 0], [0.8, 0.6], [0, 1]]), np.array([0, 2]))
    >>> comparison = comparer.compare(np.float32([[2, 0]]), np.float32([0.75]), neighbors=2)
    >>> comparison.matches.tolist(), comparison.scores.tolist(), comparison.neighbors.tolist()
    ([[2, 0]], [[1.0, 0.0]], [[0, 1]])
    """

    def __init__(self, base: Float32, class_starts: Index) -> None:
        self._base = base
        self._class_starts = class_starts
        self._blocks = [_block(class_starts, start, len(base)) for start in range(0, len(base), BLOCK_ROWS)]
        self._combs = np.concatenate([_combs(start, len(base)) for start in range(0, len(base), BLOCK_ROWS)])
        self._similarities = np.empty((0, 0), np.float32)
        self._map: Any = map
        if len(self._blocks) > 1:
            self._map = ThreadPoolExecutor(len(os.sched_getaffinity(0)), "compare").map

    def compare(self, queries: Float32, thresholds: Float32, neighbors: int) -> Comparison:
        """Compare N queries.

        Args:
            queries: Query embeddings, float32 [N, D], of any norm; all similarities of a zero embedding are zero.
            thresholds: Each query's lowest similarity that is a match, inclusive, float32 [N], -1 to 1.
            neighbors: Number of most similar base images to find, at least 1.

        Returns:
            The comparison; K is ``min(neighbors, B)``.
        """
        lowest = _lowest(thresholds)[:, None]
        parts = [self._compare(unit, lowest[rows], neighbors) for unit, rows in self._parts(queries)]
        return parts[0] if len(parts) == 1 else Comparison(*map(np.concatenate, zip(*parts, strict=True)))

    def classes_at(self, queries: Float32, thresholds: Float32) -> Int32:
        """Choose each query's class at several thresholds.

        Args:
            queries: Query embeddings, float32 [N, D], of any norm.
            thresholds: Lowest similarities that are a match, inclusive, float32 [N, T], -1 to 1, in any order.

        Returns:
            Class indices by ``best_class``, int32 [N, T]; -1 where no base image matches.

        >>> comparer = Comparer(np.float32([[1, 0], [0.8, 0.6], [0, 1]]), np.array([0, 2]))
        >>> comparer.classes_at(np.float32([[0.6, 0.8]]), np.float32([[0.9, -1, 0.97]])).tolist()
        [[0, 0, -1]]
        """
        classes = np.empty(thresholds.shape, np.int32)
        if not thresholds.size:
            return classes
        lowest = _lowest(thresholds)
        for unit, rows in self._parts(queries):
            similarities = self._room(len(unit))
            for block, _, _ in self._blocks:
                self._multiply(unit, block, similarities)
            for row, query_similarities in enumerate(similarities[:, : len(self._base)], rows.start):
                classes[row] = self._classes_at(query_similarities, lowest[row])
        return classes

    def _classes_at(self, similarities: Float32, thresholds: Float32) -> Int32:
        """Choose one query's class at each of T thresholds from its similarities [B]."""
        order = np.argsort(thresholds)
        reached = np.searchsorted(thresholds[order], similarities, side="right")  # [B], number of thresholds, 0 to T
        class_count, columns = len(self._class_starts), len(thresholds) + 1
        sizes = np.diff([*self._class_starts, len(similarities)])
        cells = np.repeat(np.arange(class_count) * columns, sizes) + reached
        counts = np.bincount(cells, minlength=class_count * columns).reshape(class_count, columns)
        matches = counts[:, :0:-1].cumsum(axis=1)[:, ::-1].astype(np.int32)  # [C, T], by ascending thresholds
        scores = np.clip(np.maximum.reduceat(similarities, self._class_starts), -1, 1)
        winners = best_class(matches.T, np.broadcast_to(scores, matches.T.shape))
        classes = np.empty(len(thresholds), np.int32)
        classes[order] = np.where(matches.any(axis=0), winners, -1)
        return classes

    def _parts(self, queries: Float32) -> Iterator[tuple[Float32, slice]]:
        """Yield L2-normalized queries, some at a time, and their rows."""
        unit = normalize(queries)
        at_a_time = max(FEWEST_QUERIES, SIMILARITIES // len(self._base))
        for start in range(0, len(unit), at_a_time):
            rows = slice(start, min(start + at_a_time, len(unit)))
            yield unit[rows], rows

    def _room(self, queries: int) -> Float32:
        """Return memory for the similarities of queries with all base images."""
        if len(self._similarities) < queries:
            # Columns beyond the base set complete the last combs.
            self._similarities = np.full((queries, self._combs.max() + 1), -np.inf, np.float32)
        return self._similarities[:queries]

    def _multiply(self, unit: Float32, block: slice, similarities: Float32) -> None:
        for start in range(block.start, block.stop, PRODUCT_ROWS):
            part = slice(start, min(start + PRODUCT_ROWS, block.stop))
            np.matmul(unit, self._base[part].T, out=similarities[:, part])

    def _compare(self, unit: Float32, lowest: Float32, neighbors: int) -> Comparison:
        similarities = self._room(len(unit))
        count = min(neighbors, len(self._base))
        matches = np.zeros((len(unit), len(self._class_starts)), np.int32)
        scores = np.full(matches.shape, -1, np.float32)
        tops = []
        reduced = self._map(partial(self._reduce, unit, similarities, lowest), self._blocks)
        for (_, classes, _), (highest, block_matches, combed) in zip(self._blocks, reduced, strict=True):
            np.maximum(scores[:, classes], highest, out=scores[:, classes])
            if block_matches is not None:
                matches[:, classes] += block_matches
            tops.append(combed)
        if count < len(self._combs):
            neighbor_rows = nearest(similarities, np.concatenate(tops, axis=1), self._combs, count)
        else:
            neighbor_rows = _first_sorted(similarities, count)
        found = similarities[np.arange(len(unit))[:, None], neighbor_rows]
        return Comparison(
            matches=matches,
            scores=np.minimum(scores, 1, out=scores),
            neighbors=neighbor_rows,
            neighbor_similarities=np.minimum(np.maximum(found, -1), 1),
        )

    def _reduce(
        self, unit: Float32, similarities: Float32, lowest: Float32, block: _Block
    ) -> tuple[Float32, Int32 | None, Float32]:
        """Compare with the images of a block.

        Returns:
            Of each query, the highest similarity in each class of the block, the matches there (None: nowhere), and the
            highest similarity in each comb.
        """
        rows, _, class_cuts = block
        self._multiply(unit, rows, similarities)
        values = similarities[:, rows]
        highest = np.maximum.reduceat(values, class_cuts, axis=1)
        matches = None
        if (highest >= lowest).any():
            matches = np.add.reduceat(values >= lowest, class_cuts, axis=1, dtype=np.int32)
        combed = similarities[:, rows.start : _padded(rows.stop)].reshape(len(unit), COMB_ROWS, -1)
        return highest, matches, combed.max(axis=1)


def _lowest(thresholds: Float32) -> Float32:
    """Make a threshold of -1 match everything: rounding can push a similarity just below -1."""
    return np.where(thresholds <= -1, -np.inf, thresholds).astype(np.float32)


def _block(class_starts: Index, start: int, base_images: int) -> _Block:
    """Cut a block out of the base set: its rows, its classes, and the first row of each class within the block."""
    stop = min(start + BLOCK_ROWS, base_images)
    first, end = np.searchsorted(class_starts, [start + 1, stop]) - [1, 0]
    return slice(start, stop), slice(first, end), np.maximum(class_starts[first:end] - start, 0)


def _combs(start: int, base_images: int) -> Index:
    """List the rows of each comb of a block, integers [combs, COMB_ROWS], ascending."""
    stop = _padded(min(start + BLOCK_ROWS, base_images))
    return np.arange(start, stop).reshape(COMB_ROWS, -1).T


def _padded(rows: int) -> int:
    return -(-rows // COMB_ROWS) * COMB_ROWS


def _first_sorted(similarities: Float32, count: int) -> Index:
    """Return the columns of each row's highest values, integers [N, count], ties in ascending order."""
    first: Index = np.argsort(-similarities, axis=1, kind="stable")[:, :count]
    return first


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
    winners: Index = np.where(most, scores, -np.inf).argmax(axis=1)
    return winners


def nearest(similarities: Float32, tops: Float32, combs: Index, count: int) -> Index:
    """Find the most similar base images of each query.

    Args:
        similarities: float32 [N, at least B], minus infinity beyond B.
        tops: Highest similarity of each comb, float32 [N, combs].
        combs: Columns of each comb, integers [combs, COMB_ROWS]; together they are all columns.
        count: Base images wanted, 1 to B.

    Returns:
        Columns, integers [N, count], most similar first, ties in ascending order.
    """
    found = np.empty((len(similarities), count), np.intp)
    high = tops >= np.partition(tops, -min(count, tops.shape[1]), axis=1)[:, -count:][:, :1]
    is_clear = high.sum(axis=1) == count  # otherwise combs tie, and each may hold one of the nearest images
    clear, others = np.flatnonzero(is_clear), np.flatnonzero(~is_clear)
    few_columns = np.sort(combs[np.nonzero(high[clear])[1]].reshape(len(clear), count * combs.shape[1]), axis=1)
    all_columns = np.broadcast_to(np.arange(similarities.shape[1]), (len(others), similarities.shape[1]))
    for rows, columns in ((clear, few_columns), (others, all_columns)):
        order = np.argsort(-similarities[rows[:, None], columns], axis=1, kind="stable")[:, :count]
        found[rows] = np.take_along_axis(columns, order, axis=1)
    return found
