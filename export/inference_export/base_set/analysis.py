"""A base set as the server sees it: each base image is compared, as a query, with all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from inference_export.base_set.scoring import Float32, Index, best_class

DUPLICATE_SIMILARITY = 0.999
MAX_QUERIES = 100_000  # each is compared with all base images
MAX_THRESHOLD_QUERIES = 2_000
THRESHOLDS = np.round(np.arange(0.3, 1.0, 0.05), 2).astype(np.float32)
MAX_PAIRS = 1_000  # listed near-duplicates of each kind
_BLOCK_VALUES = 16 * 2**20  # similarities in memory at a time


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Pairs of base images at a similarity of ``DUPLICATE_SIMILARITY`` or more.

    Attributes:
        count: Number of pairs.
        pairs: Two rows and their similarity, for each of the first ``MAX_PAIRS`` pairs.
    """

    count: int = 0
    pairs: list[tuple[int, int, float]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class ThresholdOutcome:
    """The labels that base images get from the other base images at a threshold.

    Attributes:
        threshold: Lowest similarity that counts as a match, -1 to 1.
        right: Share of base images that get the label of their own class, 0 to 1.
        unmatched: Share of base images without a match, 0 to 1. They get the label of the nearest base image, or the
            unknown label if the repository has one.
    """

    threshold: float
    right: float
    unmatched: float


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Some base images, each compared as a query with all others.

    Attributes:
        rows: Rows of the queries, ascending [Q].
        own: Highest similarity of each query with another image of its class, float32 [Q]; -inf: there is none.
        other: Highest similarity of each query with an image of another class, float32 [Q]; -inf: there is none.
        other_class: Class index of that image, integers [Q].
        same_class: Near-duplicates within a class.
        conflicts: Near-duplicates in two classes.
    """

    rows: Index
    own: Float32
    other: Float32
    other_class: Index
    same_class: Duplicates
    conflicts: Duplicates

    @property
    def misplaced(self) -> Index:
        """Positions in ``rows`` of images that are closer to another class than to their own, the worst first."""
        positions = np.flatnonzero((self.other > self.own) & np.isfinite(self.own))
        worst_first: Index = positions[np.argsort(self.own[positions] - self.other[positions], kind="stable")]
        return worst_first


@dataclass(frozen=True, kw_only=True)
class Analysis(Comparison):
    """The findings about a base set; the queries are all base images, or evenly spaced ones.

    Attributes:
        thresholds: Outcomes at several thresholds, ascending.
        threshold_queries: Number of queries for these outcomes.
    """

    thresholds: list[ThresholdOutcome]
    threshold_queries: int


def analyze(
    embeddings: Float32,
    class_starts: Index,
    *,
    threshold: float,
    has_unknown_label: bool = False,
    advance: Callable[[int], None] = lambda count: None,
) -> Analysis:
    """Compare each base embedding with all others.

    Args:
        embeddings: L2-normalized base embeddings, float32 [B, D], one class after another. May be mapped from a file.
        class_starts: First row of each class, ascending integers [C] from 0; no class is empty.
        threshold: The exported threshold, which is tried besides ``THRESHOLDS``.
        has_unknown_label: Whether an image without a match gets a label that is no class, which is never right.
        advance: Called with the number of queries done since the last call.

    >>> embeddings = np.float32([[1, 0], [0.6, 0.8], [0, 1]])
    >>> analysis = analyze(embeddings, np.array([0, 2]), threshold=0.75)
    >>> analysis.own.round(1).tolist(), analysis.misplaced.tolist()
    ([0.6000000238418579, 0.6000000238418579, -inf], [1])
    """
    rows = _spread(len(embeddings), MAX_QUERIES)
    comparison = compare_rows(embeddings, class_starts, rows, advance=advance)
    chosen = rows[_spread(len(rows), MAX_THRESHOLD_QUERIES)]
    return Analysis(
        **vars(comparison),
        thresholds=_try_thresholds(
            embeddings,
            class_starts,
            _classes_of(embeddings, class_starts),
            chosen,
            threshold,
            unmatched_may_be_right=not has_unknown_label,
        ),
        threshold_queries=len(chosen),
    )


def compare_rows(
    embeddings: Float32, class_starts: Index, rows: Index, *, advance: Callable[[int], None] = lambda count: None
) -> Comparison:
    """Compare some base embeddings with all others.

    Args:
        embeddings: L2-normalized base embeddings, float32 [B, D], one class after another. May be mapped from a file.
        class_starts: First row of each class, ascending integers [C] from 0; no class is empty.
        rows: The rows to compare, ascending integers [Q].
        advance: Called with the number of queries done since the last call.
    """
    count, classes = len(embeddings), len(class_starts)
    class_of = _classes_of(embeddings, class_starts)
    own, other = np.full(len(rows), -np.inf, np.float32), np.full(len(rows), -np.inf, np.float32)
    other_class = np.zeros(len(rows), np.intp)
    duplicates = {same: Duplicates() for same in (True, False)}
    is_query = np.zeros(count, bool)
    is_query[rows] = True
    at_a_time = max(1, _BLOCK_VALUES // count)
    for start in range(0, len(rows), at_a_time):
        part = slice(start, start + at_a_time)
        similarities, best = _compare(embeddings, class_starts, rows[part])
        for query in np.flatnonzero(best.max(axis=1) >= DUPLICATE_SIMILARITY):
            duplicates = _add_duplicates(duplicates, similarities[query], int(rows[part][query]), is_query, class_of)
        positions = np.arange(len(best))
        own[part] = best[positions, class_of[rows[part]]]
        if classes > 1:
            best[positions, class_of[rows[part]]] = -np.inf
            other_class[part] = best.argmax(axis=1)
            other[part] = best.max(axis=1)
        advance(len(best))
    return Comparison(
        rows=rows,
        own=np.minimum(own, 1),
        other=np.minimum(other, 1),
        other_class=other_class,
        same_class=duplicates[True],
        conflicts=duplicates[False],
    )


def _classes_of(embeddings: Float32, class_starts: Index) -> Index:
    classes: Index = np.searchsorted(class_starts, np.arange(len(embeddings)), side="right") - 1
    return classes


def _spread(count: int, most: int) -> Index:
    return np.arange(count) if count <= most else np.linspace(0, count - 1, most).round().astype(np.intp)


def _compare(embeddings: Float32, class_starts: Index, rows: Index) -> tuple[Float32, Float32]:
    """Return similarities [q, B], -inf for a row with itself, and the highest similarity in each class [q, C]."""
    similarities: Float32 = embeddings[rows] @ embeddings.T
    similarities[np.arange(len(rows)), rows] = -np.inf
    return similarities, np.maximum.reduceat(similarities, class_starts, axis=1)


def _add_duplicates(
    known: dict[bool, Duplicates], similarities: Float32, row: int, is_query: npt.NDArray[np.bool_], class_of: Index
) -> dict[bool, Duplicates]:
    """Add the near-duplicates of one query, given its similarities with all images, [B]."""
    others = np.flatnonzero(similarities >= DUPLICATE_SIMILARITY)
    others = others[(others > row) | ~is_query[others]]  # a pair of two queries is found twice
    same = class_of[others] == class_of[row]
    added = {}
    for kind, before in known.items():
        chosen = others[same == kind]
        shown = chosen[: MAX_PAIRS - len(before.pairs)].tolist()
        pairs = [(row, other, min(1.0, float(similarities[other]))) for other in shown]
        added[kind] = Duplicates(
            count=before.count + len(chosen), pairs=[*before.pairs, *pairs] if pairs else before.pairs
        )
    return added


def _try_thresholds(
    embeddings: Float32,
    class_starts: Index,
    class_of: Index,
    rows: Index,
    threshold: float,
    *,
    unmatched_may_be_right: bool,
) -> list[ThresholdOutcome]:
    thresholds = np.unique(np.append(THRESHOLDS, np.float32(threshold)))
    right, unmatched = np.zeros((2, len(thresholds)), np.int64)
    at_a_time = max(1, _BLOCK_VALUES // len(embeddings))
    for start in range(0, len(rows), at_a_time):
        part = rows[start : start + at_a_time]
        similarities, scores = _compare(embeddings, class_starts, part)
        for position, lowest in enumerate(thresholds):
            matches = np.add.reduceat(similarities >= lowest, class_starts, axis=1, dtype=np.int32)
            matched = matches.any(axis=1)
            labelled = best_class(matches, scores) == class_of[part]
            right[position] += np.count_nonzero(labelled & (matched | unmatched_may_be_right))
            unmatched[position] += np.count_nonzero(~matched)
    return [
        ThresholdOutcome(threshold=round(float(lowest), 4), right=float(good), unmatched=float(none))
        for lowest, good, none in zip(thresholds, right / len(rows), unmatched / len(rows), strict=True)
    ]
