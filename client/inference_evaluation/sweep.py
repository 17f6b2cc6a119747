"""What a query would be answered at every threshold, exactly, in few questions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Index: TypeAlias = "NDArray[np.intp]"
Int32: TypeAlias = "NDArray[np.int32]"

THRESHOLDS = np.arange(-100, 101) / 100  # every one that two decimals can write


@dataclass(frozen=True, kw_only=True)
class Swept:
    """The answers to N queries at the T thresholds of ``THRESHOLDS``.

    Attributes:
        label: Index of each query's class, integers [N, T]; where nothing matches the one of the highest similarity.
        matches: Base images that match, of all classes together, int32 [N, T].
    """

    label: Index
    matches: Int32


def sweep(ask: Callable[[Index, float], tuple[Index, Int32]], queries: int) -> Swept:
    """Find the answers at every threshold.

    Fewer base images match a higher threshold, never more. So a query that has as many matches in every class at two
    thresholds has them at all between, and is answered the same: only the rest is asked again, halfway.

    Args:
        ask: Given the rows of queries [n] and a threshold, answers their classes [n] and matches int32 [n, C].
        queries: N.

    Returns:
        The answers.
    """
    last = len(THRESHOLDS) - 1
    label = np.zeros((queries, last + 1), np.intp)
    total = np.zeros((queries, last + 1), np.int32)
    matches: dict[int, Any] = {}

    def ask_at(column: int, rows: Index) -> None:
        label[rows, column], found = ask(rows, float(THRESHOLDS[column]))
        total[rows, column] = found.sum(axis=1)
        matches.setdefault(column, np.zeros((queries, found.shape[1]), np.int32))[rows] = found

    rows = np.arange(queries)
    ask_at(0, rows)
    ask_at(last, rows)
    open_spans = [(0, last, rows)]
    while open_spans:
        low, high, rows = open_spans.pop()
        same = (matches[low][rows] == matches[high][rows]).all(axis=1)
        between = slice(low + 1, high)
        label[rows[same], between] = label[rows[same], low, None]
        total[rows[same], between] = total[rows[same], low, None]
        rows = rows[~same]
        if len(rows) and high - low > 1:
            middle = (low + high) // 2
            ask_at(middle, rows)
            open_spans += [(low, middle, rows), (middle, high, rows)]
    return Swept(label=label, matches=total)
