"""What each threshold would do to the images of an evaluation, and which of them to take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from inference_client.evaluation.asking import Prediction
from inference_client.evaluation.sweep import THRESHOLDS

FOLDS = 5
FEWEST_IMAGES = 10
CLASSIFICATION_THRESHOLDS = np.arange(0, 101) / 100

Booleans: TypeAlias = "NDArray[np.bool_]"  # [N, T]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One threshold.

    Attributes:
        threshold: Lowest similarity that is a match; in classification mode lowest probability that is taken.
        matched: Images that something matches; in classification mode those whose probability reaches it.
        matched_right: How many of them are answered right.
        right: Right answers in all, where an image that nothing matches has the class of the nearest base image.
        right_with_unknown: Right answers in all with an ``unknown_label``, which is right for the images of classes
            that the server does not know.
    """

    threshold: float
    matched: int
    matched_right: int
    right: int
    right_with_unknown: int


@dataclass(frozen=True, kw_only=True)
class ThresholdChoice:
    """The recommended threshold.

    Attributes:
        threshold: It.
        trial: What it does to the images that it was chosen by.
        low: Lowest threshold of the unbroken run, around the best one, within one standard error of it.
        high: Highest of them.
        tolerance_images: One standard error of the number that counts as right, rounded down.
        held_out_right: Right answers with an unknown label (``right_with_unknown``) of images that the choice did not
            see, in cross-validation.
        fold_choices: The thresholds that were chosen there.
    """

    threshold: float
    trial: Trial
    low: float
    high: float
    tolerance_images: int
    held_out_right: int
    fold_choices: Sequence[float]


def try_thresholds(classified: Sequence[Prediction], *, mode: str | None) -> Sequence[Trial]:
    """Say what each threshold would do; nothing where the answers at other thresholds are not known."""
    outcomes = _outcomes(classified, mode)
    if outcomes is None:
        return []
    thresholds, matched, right, unknown = outcomes
    useful = _useful(matched, right)
    columns = {
        "matched": matched.sum(axis=0),
        "matched_right": (matched & right).sum(axis=0),
        "right": right.sum(axis=0),
        "right_with_unknown": _right_with_unknown(matched, right, unknown).sum(axis=0),
    }
    return [
        Trial(threshold=float(thresholds[column]), **{name: int(values[column]) for name, values in columns.items()})
        for column in range(useful.start, useful.stop)
    ]


def choose_threshold(
    classified: Sequence[Prediction], *, mode: str | None, no_sweep: str | None
) -> tuple[ThresholdChoice | None, str | None]:
    """Recommend a threshold.

    An image counts for a threshold where it is answered right on the evidence of a match, or, if its class is one that
    the server does not know, where nothing matches it. The middle is taken of the unbroken run of thresholds around the
    best one, that fall short of its count by one standard error at most.

    Returns:
        The choice, or None and why there is none.
    """
    if not classified:
        return None, "no image was classified"
    if mode == "classification":
        return None, "in classification mode nothing is compared with base images, so that -thres has no effect"
    outcomes = _outcomes(classified, mode)
    if outcomes is None:
        return None, f"the answers at other thresholds could not be asked for: {no_sweep or 'there is no reason given'}"
    if len(classified) < FEWEST_IMAGES:
        return None, f"{len(classified)} images are too few to choose by; {FEWEST_IMAGES} are the least"
    thresholds, matched, right, unknown = outcomes
    counts = _right_with_unknown(matched, right, unknown)
    if not (matched & right).any():
        return None, "at no threshold is any image answered right on the evidence of a match"
    useful = _useful(matched, right)
    low, chosen, high, tolerance = _choose(counts[:, useful])
    held_out_right, fold_choices = _cross_validate(counts[:, useful])
    trials = try_thresholds(classified, mode=mode)
    offered = thresholds[useful]
    return ThresholdChoice(
        threshold=float(offered[chosen]),
        trial=trials[chosen],
        low=float(offered[low]),
        high=float(offered[high]),
        tolerance_images=tolerance,
        held_out_right=held_out_right,
        fold_choices=[float(offered[column]) for column in fold_choices],
    ), None


def _outcomes(
    classified: Sequence[Prediction], mode: str | None
) -> "tuple[NDArray[np.float64], Booleans, Booleans, NDArray[np.bool_]] | None":
    """Thresholds [T]; whether an image is matched and right, [N, T]; whether its class is unknown, [N]."""
    if not classified:
        return None
    unknown = np.array([each.image.truth not in each.scores for each in classified])
    if mode == "classification":
        thresholds = CLASSIFICATION_THRESHOLDS
        probability = np.array([each.probability for each in classified])
        right = np.array([each.label == each.image.truth for each in classified])
        return thresholds, probability[:, None] >= thresholds, np.repeat(right[:, None], len(thresholds), 1), unknown
    if any(each.labels is None or each.matched is None for each in classified):
        return None
    matched = np.array([each.matched for each in classified])
    right = np.array([[label == each.image.truth for label in each.labels or ()] for each in classified])
    return THRESHOLDS, matched, right, unknown


def _right_with_unknown(matched: Booleans, right: Booleans, unknown: "NDArray[np.bool_]") -> Booleans:
    return np.where(unknown[:, None], ~matched, matched & right)


def _useful(matched: Booleans, right: Booleans) -> slice:
    """Leave out, at either end, all but one of the thresholds at which nothing changes any more."""
    changes = np.flatnonzero(
        (matched[:, 1:] != matched[:, :-1]).any(axis=0) | (right[:, 1:] != right[:, :-1]).any(axis=0)
    )
    if not len(changes):
        return slice(0, matched.shape[1])
    return slice(int(changes[0]), int(changes[-1]) + 2)


def _choose(counts: Booleans) -> tuple[int, int, int, int]:
    """Choose a column by counts [N, T]: lower end of the run, choice, upper end, and the tolerance in images."""
    images = len(counts)
    totals = counts.sum(axis=0)
    # Agresti's and Coull's estimate, whose standard error is not zero where all are right.
    share = (totals.max() + 2) / (images + 4)
    tolerance = math.floor(math.sqrt(share * (1 - share) / (images + 4)) * images)
    good = totals >= totals.max() - tolerance
    # Several thresholds may be best: the longest run that holds one of them.
    ends = np.flatnonzero(np.diff(np.concatenate([[False], good, [False]]).astype(int)))
    runs = [(low, end - 1) for low, end in ends.reshape(-1, 2) if totals[low:end].max() == totals.max()]
    low, high = max(runs, key=lambda run: run[1] - run[0])
    return int(low), int((low + high + 1) // 2), int(high), tolerance


def _cross_validate(counts: Booleans) -> tuple[int, Sequence[int]]:
    from sklearn.model_selection import KFold

    right = 0
    choices = []
    for chosen_by, held_out in KFold(FOLDS, shuffle=True, random_state=0).split(counts):
        _, chosen, _, _ = _choose(counts[chosen_by])
        choices.append(chosen)
        right += int(counts[held_out, chosen].sum())
    return right, choices
