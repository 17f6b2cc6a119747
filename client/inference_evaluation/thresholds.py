"""The effect of each threshold on the images of an evaluation, and the threshold to recommend."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from inference_evaluation.predictions import THRESHOLDS, Prediction
from inference_evaluation.shares import Share, wilson

FOLDS = 5
FEWEST_IMAGES = 10
LOWEST_OFFERED = 0.0  # at a lower similarity, two images are unlike
CLASSIFICATION_THRESHOLDS = np.arange(0, 101) / 100

Booleans: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One threshold, and its effect on the images.

    Attributes:
        threshold: Lowest similarity that counts as a match; in classification mode, lowest probability to accept.
        matched: Images with a match; in classification mode, images whose probability reaches the threshold.
        matched_right: Images in ``matched`` with the right label.
        right: Images with the right label if an image without a match gets the class of the nearest base image.
        right_with_unknown: Images with the right label if an image without a match gets the unknown label. That label
            is right for images whose class the server does not know.
    """

    threshold: float
    matched: int
    matched_right: int
    right: int
    right_with_unknown: int


@dataclass(frozen=True, kw_only=True)
class ThresholdInForce:
    """The threshold that the server answered with.

    Attributes:
        value: The threshold, -1 to 1.
        given: The value of ``sim_thres``; None if the server's own threshold was in force.
        outcome: Effect of this threshold.
    """

    value: float
    given: float | None
    outcome: Trial


@dataclass(frozen=True, kw_only=True)
class ThresholdChoice:
    """The recommended threshold.

    Attributes:
        threshold: The threshold.
        trial: Effect of the threshold on the images by which it was chosen.
        low: Lowest threshold of the range; at least ``LOWEST_OFFERED``. The range is unbroken and holds the best
            threshold, and every threshold in it is within one standard error of the best.
        high: Highest threshold of the range.
        tolerance_images: One standard error of ``right_with_unknown``, rounded down.
        held_out: ``right_with_unknown`` in cross-validation, on images that took no part in the choice.
        fold_choices: The thresholds chosen in cross-validation.
    """

    threshold: float
    trial: Trial
    low: float
    high: float
    tolerance_images: int
    held_out: Share
    fold_choices: Sequence[float]


class _Outcomes(NamedTuple):
    """The effect of T thresholds on N images; the flags are bool [N, T]."""

    thresholds: NDArray[np.float64]  # [T]
    matched: Booleans
    right: Booleans
    counts: Booleans  # whether the image counts as right with an unknown label

    def trial(self, column: int) -> Trial:
        matched, right, counts = self.matched[:, column], self.right[:, column], self.counts[:, column]
        return Trial(
            threshold=float(self.thresholds[column]),
            matched=int(matched.sum()),
            matched_right=int((matched & right).sum()),
            right=int(right.sum()),
            right_with_unknown=int(counts.sum()),
        )

    def offered(self) -> "_Outcomes":
        first = np.searchsorted(self.thresholds, LOWEST_OFFERED)
        return _Outcomes(self.thresholds[first:], *(flags[:, first:] for flags in self[1:]))


def try_thresholds(classified: Sequence[Prediction], *, mode: str | None) -> Sequence[Trial]:
    """Compute the effect of each threshold; nothing if the server did not answer at other thresholds."""
    outcomes = _outcomes(classified, mode)
    if outcomes is None:
        return []
    return [outcomes.trial(column) for column in range(_first_shown(outcomes), len(outcomes.thresholds))]


def try_threshold_in_force(
    classified: Sequence[Prediction], threshold: float, *, given: float | None
) -> ThresholdInForce:
    """Compute the effect of the threshold in force, in clustering mode, from the answers themselves."""
    matched = np.array([[prediction.is_matched] for prediction in classified], bool)
    labels = [[prediction.label if prediction.is_matched else prediction.nearest_class] for prediction in classified]
    outcomes = _compare(classified, np.array([threshold]), matched, labels)
    return ThresholdInForce(value=threshold, given=given, outcome=outcomes.trial(0))


def choose_threshold(
    classified: Sequence[Prediction], *, mode: str | None, no_trials: str | None
) -> tuple[ThresholdChoice | None, str | None]:
    """Recommend a threshold.

    An image counts as right at a threshold if its label is right and at least one base image matches. An image whose
    class the server does not know counts as right if nothing matches. The choice is the middle of an unbroken range of
    thresholds that holds the best one. In the range, every count is within one standard error of the best count.
    Thresholds below ``LOWEST_OFFERED`` are never chosen.

    Args:
        classified: The images with an answer.
        mode: The server's mode; None if nothing was classified.
        no_trials: Why the server did not answer at other thresholds; None if it did.

    Returns:
        The choice, or None and the reason.
    """
    if not classified:
        return None, "no image was classified"
    if mode == "classification":
        return None, "-thres has no effect in classification mode, which does not compare images with base images"
    outcomes = _outcomes(classified, mode)
    if outcomes is None:
        return None, f"the server did not answer at other thresholds: {no_trials}"
    if len(classified) < FEWEST_IMAGES:
        return None, f"a choice needs at least {FEWEST_IMAGES} classified images; this evaluation has {len(classified)}"
    outcomes = outcomes.offered()
    low, chosen, high, tolerance = _choose(outcomes.counts)
    matched_right = outcomes.matched & outcomes.right
    if not matched_right[:, chosen].any():
        return None, (
            "a threshold that nothing reaches would be best, since the server does not know most images' classes"
            if matched_right.any()
            else f"at no threshold from {LOWEST_OFFERED:g} to 1 does any image have the right label and a match"
        )
    held_out_right, fold_choices = _cross_validate(outcomes.counts)
    thresholds = outcomes.thresholds.tolist()
    return ThresholdChoice(
        threshold=thresholds[chosen],
        trial=outcomes.trial(chosen),
        low=thresholds[low],
        high=thresholds[high],
        tolerance_images=tolerance,
        held_out=wilson(held_out_right, len(classified)),
        fold_choices=[thresholds[column] for column in fold_choices],
    ), None


def _outcomes(classified: Sequence[Prediction], mode: str | None) -> _Outcomes | None:
    if not classified:
        return None
    if mode == "classification":
        thresholds = CLASSIFICATION_THRESHOLDS
        reached = np.array([[prediction.probability] for prediction in classified]) >= thresholds
        labels = [[prediction.label] * len(thresholds) for prediction in classified]
        return _compare(classified, thresholds, reached, labels)
    if any(prediction.labels_at is None for prediction in classified):
        return None
    matched = np.array([prediction.matched_at for prediction in classified], bool)
    return _compare(classified, THRESHOLDS, matched, [prediction.labels_at for prediction in classified])


def _compare(
    classified: Sequence[Prediction], thresholds: NDArray[np.float64], matched: Booleans, labels: object
) -> _Outcomes:
    truths = np.array([prediction.image.truth for prediction in classified], object)
    unknown = np.array([not prediction.is_known for prediction in classified], bool)
    right = np.array(labels, object) == truths[:, None]
    return _Outcomes(thresholds, matched, right, np.where(unknown[:, None], ~matched, matched & right))


def _first_shown(outcomes: _Outcomes) -> int:
    """Find the first threshold to show: of the lowest ones, which change nothing and are not offered, only the last."""
    lowest_offered = int(np.searchsorted(outcomes.thresholds, LOWEST_OFFERED))
    changes = np.diff(outcomes.matched, axis=1).any(axis=0) | np.diff(outcomes.right, axis=1).any(axis=0)
    return int(np.argmax([*changes[:lowest_offered], True]))


def _choose(counts: Booleans) -> tuple[int, int, int, int]:
    """Choose a column of ``counts`` [N, T].

    Returns:
        Lower end of the range, choice, upper end, and the tolerance in images.
    """
    images = len(counts)
    totals = counts.sum(axis=0)
    # By Agresti and Coull's estimate, because its standard error is not zero if all images count.
    share = (totals.max() + 2) / (images + 4)
    tolerance = math.floor(math.sqrt(share * (1 - share) / (images + 4)) * images)
    good = totals >= totals.max() - tolerance
    # Several thresholds may be best: take the longest range that holds one of them.
    edges = np.flatnonzero(np.diff(good, prepend=False, append=False))
    ranges = [(low, end - 1) for low, end in edges.reshape(-1, 2) if totals[low:end].max() == totals.max()]
    low, high = max(ranges, key=lambda ends: ends[1] - ends[0])
    return int(low), int((low + high + 1) // 2), int(high), tolerance


def _cross_validate(counts: Booleans) -> tuple[int, Sequence[int]]:
    """Choose on four fifths of the images and count on the rest, in turn; return the count and the choices."""
    from sklearn.model_selection import KFold

    right = 0
    choices = []
    for chosen_by, held_out in KFold(FOLDS, shuffle=True, random_state=0).split(counts):
        _, chosen, _, _ = _choose(counts[chosen_by])
        choices.append(chosen)
        right += int(counts[held_out, chosen].sum())
    return right, choices
