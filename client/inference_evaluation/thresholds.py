"""What each threshold would do to the images of an evaluation, and which of them to take."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from inference_evaluation.asking import Prediction
from inference_evaluation.shares import Share, wilson
from inference_evaluation.sweep import THRESHOLDS

FOLDS = 5
FEWEST_IMAGES = 10
LOWEST_OFFERED = 0.0  # a base image of a lower similarity is unlike the image, not alike
CLASSIFICATION_THRESHOLDS = np.arange(0, 101) / 100

Flags: TypeAlias = "NDArray[np.bool_]"  # [N]
Booleans: TypeAlias = "NDArray[np.bool_]"  # [N, T]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a threshold does to the images.

    Attributes:
        matched: Images that something matches; in classification mode those whose probability reaches it.
        matched_right: How many of them are answered right.
        right: Right answers in all, where an image that nothing matches has the class of the nearest base image.
        right_with_unknown: Right answers in all with an ``unknown_label``, which is right for the images of classes
            that the server does not know.
    """

    matched: int
    matched_right: int
    right: int
    right_with_unknown: int


@dataclass(frozen=True, kw_only=True)
class Trial(Outcome):
    """One threshold, and what it does.

    Attributes:
        threshold: Lowest similarity that is a match; in classification mode lowest probability that is taken.
    """

    threshold: float


@dataclass(frozen=True, kw_only=True)
class ThresholdChoice:
    """The recommended threshold.

    Attributes:
        threshold: It.
        trial: What it does to the images that it was chosen by.
        low: Lowest threshold of the unbroken run, around the best one, within one standard error of it; not below
            ``LOWEST_OFFERED``.
        high: Highest of them.
        tolerance_images: One standard error of the number that counts as right, rounded down.
        held_out: Right answers with an unknown label (``right_with_unknown``) of images that the choice did not see, in
            cross-validation.
        fold_choices: The thresholds that were chosen there.
    """

    threshold: float
    trial: Trial
    low: float
    high: float
    tolerance_images: int
    held_out: Share
    fold_choices: Sequence[float]


def try_thresholds(classified: Sequence[Prediction], *, mode: str | None) -> Sequence[Trial]:
    """Say what each threshold would do; nothing where the answers at other thresholds are not known."""
    outcomes = _outcomes(classified, mode)
    if outcomes is None:
        return []
    thresholds, matched, right, unknown = outcomes
    counts = _right_with_unknown(matched, right, unknown)
    return [
        _trial(float(thresholds[column]), matched[:, column], right[:, column], counts[:, column])
        for column in range(_first_shown(thresholds, matched, right), len(thresholds))
    ]


def try_threshold_in_force(classified: Sequence[Prediction]) -> Outcome:
    """Say what the threshold in force does, in clustering mode, by the answers themselves."""
    matched = np.array([any(each.matches.values()) for each in classified], bool)
    labels = [
        each.label if any_match else each.nearest_class for each, any_match in zip(classified, matched, strict=True)
    ]
    right = np.array([label == each.image.truth for label, each in zip(labels, classified, strict=True)], bool)
    unknown = np.array([each.image.truth not in each.scores for each in classified], bool)
    counts = _right_with_unknown(matched[:, None], right[:, None], unknown)[:, 0]
    return Outcome(**_outcome(matched, right, counts))


def _trial(threshold: float, matched: Flags, right: Flags, counts: Flags) -> Trial:
    return Trial(threshold=threshold, **_outcome(matched, right, counts))


def _outcome(matched: Flags, right: Flags, counts: Flags) -> dict[str, int]:
    return {
        "matched": int(matched.sum()),
        "matched_right": int((matched & right).sum()),
        "right": int(right.sum()),
        "right_with_unknown": int(counts.sum()),
    }


def choose_threshold(
    classified: Sequence[Prediction], *, mode: str | None, no_sweep: str | None
) -> tuple[ThresholdChoice | None, str | None]:
    """Recommend a threshold.

    An image counts for a threshold where it is answered right on the evidence of a match, or, if its class is one that
    the server does not know, where nothing matches it. The middle is taken of the unbroken run of thresholds around the
    best one, that fall short of its count by one standard error at most. Thresholds below
    ``LOWEST_OFFERED`` are none of them, whatever they do.

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
    offered = thresholds >= LOWEST_OFFERED
    thresholds, matched, right = thresholds[offered], matched[:, offered], right[:, offered]
    counts = _right_with_unknown(matched, right, unknown)
    low, chosen, high, tolerance = _choose(counts)
    on_evidence = matched & right
    if not on_evidence[:, chosen].any():
        return None, (
            "a threshold that nothing reaches would be best: most images are of classes unknown to the server"
            if on_evidence.any()
            else f"at no threshold of {LOWEST_OFFERED:g} or more is any image answered right on the evidence of a match"
        )
    held_out_right, fold_choices = _cross_validate(counts)
    return ThresholdChoice(
        threshold=float(thresholds[chosen]),
        trial=_trial(float(thresholds[chosen]), matched[:, chosen], right[:, chosen], counts[:, chosen]),
        low=float(thresholds[low]),
        high=float(thresholds[high]),
        tolerance_images=tolerance,
        held_out=wilson(held_out_right, len(classified)),
        fold_choices=[float(thresholds[column]) for column in fold_choices],
    ), None


def _outcomes(
    classified: Sequence[Prediction], mode: str | None
) -> "tuple[NDArray[np.float64], Booleans, Booleans, Flags] | None":
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


def _right_with_unknown(matched: Booleans, right: Booleans, unknown: Flags) -> Booleans:
    return np.where(unknown[:, None], ~matched, matched & right)


def _first_shown(thresholds: "NDArray[np.float64]", matched: Booleans, right: Booleans) -> int:
    """Leave out, below those that are offered, all but one of the thresholds at which nothing changes any more."""
    changes = np.flatnonzero(
        (matched[:, 1:] != matched[:, :-1]).any(axis=0) | (right[:, 1:] != right[:, :-1]).any(axis=0)
    )
    lowest_offered = int(np.searchsorted(thresholds, LOWEST_OFFERED))
    return min(lowest_offered, int(changes[0])) if len(changes) else lowest_offered


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
