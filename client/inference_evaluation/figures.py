"""All figures of an evaluation; a figure that is not defined is None."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference_evaluation.calibration import Calibration, Histogram, calibrate, count_by_probability
from inference_evaluation.class_figures import ClassFigures, Confusion, Curves, compare_classes, count_confusions
from inference_evaluation.predictions import Answers, Prediction
from inference_evaluation.shares import Share, wilson
from inference_evaluation.thresholds import (
    ThresholdChoice,
    ThresholdInForce,
    Trial,
    choose_threshold,
    try_threshold_in_force,
    try_thresholds,
)

NEAR_COPY_SIMILARITY = 0.9999
CLUSTERING, CLASSIFICATION = "clustering", "classification"


@dataclass(frozen=True, kw_only=True)
class Unmatched:
    """Whether an unknown label would help at the threshold in force.

    Attributes:
        images: Images without a match.
        wrong: Images without a match whose nearest base image has the wrong class; an unknown label withholds these
            answers.
        matched: Images with a match.
        matched_wrong: Images with a match and a wrong label.
        unknown_images: Images whose class the server does not know.
        unknown_unmatched: Images without a match whose class the server does not know.
    """

    images: int
    wrong: int
    matched: int
    matched_wrong: int
    unknown_images: int
    unknown_unmatched: int


@dataclass(frozen=True, kw_only=True)
class InBaseSet:
    """Images that may be in the base set, where such an image always finds itself.

    Attributes:
        near: Images whose nearest base image has a similarity of at least ``NEAR_COPY_SIMILARITY``.
        copies: Images whose files are copies of base images; None if the base images were not given.
    """

    near: int
    copies: int | None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """All figures of an evaluation.

    Attributes:
        mode: ``clustering`` or ``classification``; None if nothing was classified.
        version: The version that answered; None if nothing was classified.
        threshold: The threshold in force; None in classification mode.
        sim_thres_ignored: Whether a threshold was given in classification mode, where it has no effect.
        unknown_label: The server's label for an image that nothing matches; None if no image got it.
        server_classes: The server's classes.
        unknown_classes: Class folders with images whose names the server does not know.
        images: All images.
        classified: Images with an answer.
        errors: Names of the images without an answer, by reason, the most frequent reason first.
        in_base_set: Images that may be in the base set; None in classification mode.
        accuracy: Right answers among all. For an image whose class the server does not know, the unknown label is
            right.
        known_accuracy: Right answers among the images whose class the server knows.
        macro_recall: Mean recall of the server's classes that have images.
        confusion: Images by class and label.
        classes: Each class's figures.
        curves: Each class's curves.
        calibration: Accuracy by probability.
        histogram: Right and wrong answers by probability.
        unmatched: Whether an unknown label would help; None in classification mode.
        trials: What each threshold of similarity, or in classification mode of probability, would do.
        choice: The recommended threshold; None if no threshold is recommended.
        no_choice: Why no threshold is recommended; None if one is.
        change_advised: Whether the recommended threshold gains more than one standard error over the one in force;
            None without a recommendation.
    """

    mode: str | None
    version: int | None
    threshold: ThresholdInForce | None
    sim_thres_ignored: bool
    unknown_label: str | None
    server_classes: Sequence[str]
    unknown_classes: Sequence[str]
    images: int
    classified: int
    errors: dict[str, Sequence[str]]
    in_base_set: InBaseSet | None
    accuracy: Share
    known_accuracy: Share
    macro_recall: float | None
    confusion: Confusion
    classes: Sequence[ClassFigures]
    curves: Curves
    calibration: Calibration
    histogram: Histogram
    unmatched: Unmatched | None
    trials: Sequence[Trial]
    choice: ThresholdChoice | None
    no_choice: str | None
    change_advised: bool | None


def compute_figures(answers: Answers, *, sim_thres: float | None, copies: frozenset[Path] | None = None) -> Figures:
    """Compute all figures.

    Args:
        answers: The server's answers.
        sim_thres: The threshold in the requests; None if the server's own was in force.
        copies: Files that are copies of base images; None if the base images were not given.
    """
    classified = [prediction for prediction in answers.predictions if prediction.error is None]
    known = [prediction for prediction in classified if prediction.is_known]
    right = np.array([prediction.is_right for prediction in classified], bool)
    probability = np.array([prediction.probability for prediction in classified], float)
    server_classes = list(dict.fromkeys(name for prediction in classified for name in prediction.scores))
    truths = sorted({prediction.image.truth for prediction in classified})
    labels = list(dict.fromkeys([*sorted(server_classes), *(prediction.label for prediction in classified)]))
    classes, curves = compare_classes(classified, sorted({*truths, *labels}))
    recalls = [
        of_class.recall for of_class in classes if of_class.name in server_classes and of_class.recall is not None
    ]
    unknown_label = next(
        (prediction.label for prediction in classified if prediction.label not in prediction.scores), None
    )

    in_clustering_mode = any(prediction.matches for prediction in classified)
    mode = (CLUSTERING if in_clustering_mode else CLASSIFICATION) if classified else None
    threshold = None
    if in_clustering_mode and answers.threshold is not None:
        threshold = try_threshold_in_force(classified, answers.threshold, given=sim_thres)
    choice, no_choice = choose_threshold(classified, mode=mode, no_trials=answers.no_trials)
    return Figures(
        mode=mode,
        version=answers.version,
        threshold=threshold,
        sim_thres_ignored=mode == CLASSIFICATION and sim_thres is not None,
        unknown_label=unknown_label,
        server_classes=server_classes,
        unknown_classes=[name for name in truths if name not in server_classes],
        images=len(answers.predictions),
        classified=len(classified),
        errors=_errors(answers.predictions),
        in_base_set=_in_base_set(classified, copies) if in_clustering_mode else None,
        accuracy=wilson(int(right.sum()), len(classified)),
        known_accuracy=wilson(sum(prediction.is_right for prediction in known), len(known)),
        macro_recall=float(np.mean(recalls)) if recalls else None,
        confusion=count_confusions(classified, truths, labels),
        classes=classes,
        curves=curves,
        calibration=calibrate(probability, right),
        histogram=count_by_probability(probability, right),
        unmatched=_unmatched(classified) if in_clustering_mode else None,
        trials=try_thresholds(classified, mode=mode),
        choice=choice,
        no_choice=no_choice,
        change_advised=_change_advised(choice, threshold, unknown_label),
    )


def _errors(predictions: Sequence[Prediction]) -> dict[str, Sequence[str]]:
    names: dict[str, list[str]] = {}
    for prediction in predictions:
        if prediction.error is not None:
            names.setdefault(prediction.error, []).append(prediction.image.name)
    return dict(sorted(names.items(), key=lambda item: -len(item[1])))


def _in_base_set(classified: Sequence[Prediction], copies: frozenset[Path] | None) -> InBaseSet:
    return InBaseSet(
        near=sum(
            prediction.neighbors[0][1] >= NEAR_COPY_SIMILARITY for prediction in classified if prediction.neighbors
        ),
        copies=None if copies is None else sum(prediction.image.path in copies for prediction in classified),
    )


def _unmatched(classified: Sequence[Prediction]) -> Unmatched:
    matched = [prediction for prediction in classified if prediction.is_matched]
    unmatched = [prediction for prediction in classified if not prediction.is_matched]
    return Unmatched(
        images=len(unmatched),
        wrong=sum(prediction.nearest_class != prediction.image.truth for prediction in unmatched),
        matched=len(matched),
        matched_wrong=sum(prediction.label != prediction.image.truth for prediction in matched),
        unknown_images=sum(not prediction.is_known for prediction in classified),
        unknown_unmatched=sum(not prediction.is_known for prediction in unmatched),
    )


def _change_advised(
    choice: ThresholdChoice | None, in_force: ThresholdInForce | None, unknown_label: str | None
) -> bool | None:
    if choice is None or in_force is None:
        return None
    if choice.trial.right_with_unknown - in_force.outcome.right_with_unknown <= choice.tolerance_images:
        return False
    # Without an unknown label, even an image that nothing matches gets a class.
    return unknown_label is not None or choice.trial.right - in_force.outcome.right > choice.tolerance_images
