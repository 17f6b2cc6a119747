"""Accuracy of the answers by their probability."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 10


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Answers whose probability lies in (low, high]; the first bin also holds 0.

    Attributes:
        low: Lower edge.
        high: Upper edge.
        images: Answers in the bin.
        right: Right answers in the bin.
        mean_probability: Mean probability of the answers; None if the bin is empty.
        accuracy: ``right / images``; None if the bin is empty.
    """

    low: float
    high: float
    images: int
    right: int
    mean_probability: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Accuracy by probability.

    Attributes:
        bins: ``BINS`` bins of equal width, 0 to 1. A similarity below 0 counts as 0.
        ece: Expected calibration error: mean of |accuracy - mean probability| over the bins, weighted by images; None
            if no image was classified.
    """

    bins: Sequence[Bin]
    ece: float | None


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Right and wrong answers by probability, or by similarity in clustering mode.

    Attributes:
        edges: Edges of the bins, ascending, [bins + 1].
        right: Right answers in each bin.
        wrong: Wrong answers in each bin.
    """

    edges: Sequence[float]
    right: Sequence[int]
    wrong: Sequence[int]


def calibrate(probability: NDArray[np.float64], right: NDArray[np.bool_]) -> Calibration:
    """Compare the probability of answers with their accuracy.

    Args:
        probability: Each answer's probability, or its similarity in clustering mode, [N].
        right: Whether each answer is right, [N].

    >>> round(calibrate(np.array([0.81, 0.89, 0.2]), np.array([True, False, False])).ece, 3)
    0.3
    """
    clipped = np.clip(probability, 0, 1)
    edges = np.linspace(0, 1, BINS + 1)
    bin_of = np.searchsorted(edges[1:-1], clipped)  # as scikit-learn's calibration_curve does
    columns = (np.bincount(bin_of, weights, BINS).tolist() for weights in (None, right, clipped))
    bins = [
        Bin(
            low=low,
            high=high,
            images=images,
            right=int(right_images),
            mean_probability=total / images if images else None,
            accuracy=right_images / images if images else None,
        )
        for low, high, images, right_images, total in zip(
            edges[:-1].tolist(), edges[1:].tolist(), *columns, strict=True
        )
    ]
    gaps = [
        occupied.images * abs(occupied.accuracy - occupied.mean_probability)
        for occupied in bins
        if occupied.accuracy is not None and occupied.mean_probability is not None
    ]
    return Calibration(bins=bins, ece=sum(gaps) / len(right) if gaps else None)


def count_by_probability(probability: NDArray[np.float64], right: NDArray[np.bool_]) -> Histogram:
    """Count right and wrong answers by probability, in bins that reach down to the lowest probability.

    Args:
        probability: Each answer's probability, or its similarity in clustering mode, [N].
        right: Whether each answer is right, [N].
    """
    lowest = math.floor(probability.min(initial=0.9) * 20) / 20
    edges = np.linspace(lowest, 1, round((1 - lowest) / 0.02) + 1 if lowest > 0 else 41)
    counts = [np.histogram(probability[chosen], edges)[0].tolist() for chosen in (right, ~right)]
    return Histogram(edges=edges.tolist(), right=counts[0], wrong=counts[1])
