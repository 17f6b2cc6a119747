"""The figures of an evaluation; whatever is not defined is None, and a note beside it says why."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from inference_evaluation.asking import Answers, Prediction
from inference_evaluation.shares import Share, wilson
from inference_evaluation.thresholds import (
    Outcome,
    ThresholdChoice,
    Trial,
    choose_threshold,
    try_threshold_in_force,
    try_thresholds,
)

BINS = 10
MAX_CURVE_POINTS = 500
NEAR_COPY = 0.9999  # similarity
CLUSTERING, CLASSIFICATION = "clustering", "classification"

Floats: TypeAlias = "NDArray[np.float64]"


@dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """One class against all others.

    Attributes:
        name: Its name.
        images: Images of the class that were classified.
        answered: Images that were given its name.
        precision: Share of ``answered`` that are of the class.
        recall: Share of ``images`` that were given its name.
        f1: Harmonic mean of both.
        roc_auc: Area under the ROC curve of its score.
        average_precision: Area under the precision-recall curve of its score.
        notes: Why figures are not defined.
    """

    name: str
    images: int
    answered: int
    precision: float | None
    recall: float | None
    f1: float | None
    roc_auc: float | None
    average_precision: float | None
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A curve of one class; x and y are equally long, at most ``MAX_CURVE_POINTS`` of all points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """One-vs-rest curves, by the score of the class."""

    roc: Sequence[Curve]
    precision_recall: Sequence[Curve]


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Answers whose probability lies in (low, high]; the first bin holds 0 as well.

    Attributes:
        low: Lower edge.
        high: Upper edge.
        images: Their number.
        right: How many of them are right.
        mean_probability: Of them; None of none.
        accuracy: Share of right ones; None of none.
    """

    low: float
    high: float
    images: int
    right: int
    mean_probability: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How often answers of a probability are right.

    Attributes:
        bins: ``BINS`` of equal width, 0 to 1. A similarity below 0 counts as 0.
        ece: Expected calibration error: mean of |accuracy - mean probability| over the bins, weighted by images.
    """

    bins: Sequence[Bin]
    ece: float | None


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Right and wrong answers by probability, in clustering mode by similarity."""

    edges: Sequence[float]
    right: Sequence[int]
    wrong: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Images by class, row, and answer, column."""

    truths: Sequence[str]
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Unmatched:
    """Whether ``unknown_label`` would help, at the threshold in force.

    Attributes:
        images: Images that nothing matches.
        wrong: How many of them the class of the nearest base image is wrong for: what ``unknown_label`` withholds.
        matched: Images that something matches.
        matched_wrong: How many of them are answered wrong.
        unknown_images: Images of classes that the server does not know.
        unknown_unmatched: How many of them nothing matches.
    """

    images: int
    wrong: int
    matched: int
    matched_wrong: int
    unknown_images: int
    unknown_unmatched: int


@dataclass(frozen=True, kw_only=True)
class InBaseSet:
    """Images that may be in the base set, and would find themselves there.

    Attributes:
        near: Images whose nearest base image has a similarity of ``NEAR_COPY`` or more.
        copies: Images whose files are those of base images; None where these were not at hand.
    """

    near: int
    copies: int | None


@dataclass(frozen=True, kw_only=True)
class ThresholdInForce:
    """The threshold that the server answered with.

    Attributes:
        given: As ``sim_thres`` said; None where the server's own was in force.
        above: It is higher than this; None if not known.
        below: And lower than this.
        outcome: What it did.
    """

    given: float | None
    above: float | None
    below: float | None
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class Figures:
    """All figures of an evaluation.

    Attributes:
        mode: ``clustering`` or ``classification``; None if nothing was classified.
        version: Of the models that answered.
        threshold: In clustering mode.
        sim_thres_ignored: Whether a threshold was given that has no effect, in classification mode.
        unknown_label: What the server calls an image that nothing matches; None if it has no such label, or has used
            none.
        server_classes: As the answers name them.
        unknown_classes: Class folders with images whose names the server does not know.
        images: All images.
        classified: Those with an answer.
        errors: Reasons of the others, the most frequent first, with their images.
        in_base_set: In clustering mode.
        accuracy: Right answers of all. The unknown label is right for an image of an unknown class.
        known_accuracy: The same of the images of classes that the server knows.
        macro_recall: Mean recall of the server's classes that have images.
        confusion: Images by class and answer.
        classes: Each class's figures.
        curves: One-vs-rest curves.
        calibration: How often answers of a probability are right.
        histogram: Right and wrong answers by probability.
        unmatched: In clustering mode.
        trials: What each threshold would do: of similarity, or, in classification mode, of probability.
        choice: The recommended one; None if none can be.
        no_choice: Why there is none.
        change_advised: Whether the recommended one gains anything over the one in force, that more than one standard
            error tells; None without a recommendation.
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


def is_right(prediction: Prediction) -> bool:
    """Whether an answer names the image's class, or no class of the server's for an image of none of them."""
    known = prediction.image.truth in prediction.scores
    return prediction.label == prediction.image.truth or not (known or prediction.label in prediction.scores)


def compute_figures(answers: Answers, *, sim_thres: float | None, copies: frozenset[Path] | None = None) -> Figures:
    """Compute everything.

    Args:
        answers: What the server said.
        sim_thres: The threshold that it was given; None for its own.
        copies: Files that are copies of base images; None if not known.
    """
    classified = [each for each in answers.predictions if each.error is None]
    mode = (CLUSTERING if any(each.matches for each in classified) else CLASSIFICATION) if classified else None
    server_classes = list(dict.fromkeys(name for each in classified for name in each.scores))
    known = [each for each in classified if each.image.truth in each.scores]
    right = np.array([is_right(each) for each in classified], bool)
    probability = np.array([each.probability for each in classified], float)
    truths = sorted({each.image.truth for each in classified})
    labels = list(dict.fromkeys([*sorted(server_classes), *(each.label for each in classified)]))
    classes = _class_figures(classified, truths, labels)
    recalls = [each.recall for each in classes if each.name in server_classes and each.recall is not None]
    unknown_label = next((each.label for each in classified if each.label not in each.scores), None)
    threshold = _threshold_in_force(answers, classified, sim_thres) if mode == CLUSTERING else None
    choice, no_choice = choose_threshold(classified, mode=mode, no_sweep=answers.no_sweep)
    return Figures(
        mode=mode,
        version=answers.version,
        threshold=threshold,
        sim_thres_ignored=mode == CLASSIFICATION and sim_thres is not None,
        unknown_label=unknown_label,
        server_classes=server_classes,
        unknown_classes=[name for name in truths if classified and name not in server_classes],
        images=len(answers.predictions),
        classified=len(classified),
        errors=_errors(answers.predictions),
        in_base_set=_in_base_set(classified, copies) if mode == CLUSTERING else None,
        accuracy=wilson(int(right.sum()), len(classified)),
        known_accuracy=wilson(sum(map(is_right, known)), len(known)),
        macro_recall=float(np.mean(recalls)) if recalls else None,
        confusion=_confusion(classified, truths, labels),
        classes=classes,
        curves=_curves(classified, truths, server_classes),
        calibration=_calibration(probability, right),
        histogram=_histogram(probability, right),
        unmatched=_unmatched(classified) if mode == CLUSTERING else None,
        trials=try_thresholds(classified, mode=mode),
        choice=choice,
        no_choice=no_choice,
        change_advised=_change_advised(choice, threshold, unknown_label),
    )


def _errors(predictions: Sequence[Prediction]) -> dict[str, Sequence[str]]:
    found: dict[str, list[str]] = {}
    for each in predictions:
        if each.error is not None:
            found.setdefault(each.error, []).append(each.image.name)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _in_base_set(classified: Sequence[Prediction], copies: frozenset[Path] | None) -> InBaseSet:
    return InBaseSet(
        near=sum(each.neighbors[0][1] >= NEAR_COPY for each in classified if each.neighbors),
        copies=None if copies is None else sum(each.image.path in copies for each in classified),
    )


def _threshold_in_force(
    answers: Answers, classified: Sequence[Prediction], sim_thres: float | None
) -> ThresholdInForce:
    return ThresholdInForce(
        given=sim_thres,
        above=answers.threshold_above,
        below=answers.threshold_below,
        outcome=try_threshold_in_force(classified),
    )


def _change_advised(
    choice: ThresholdChoice | None, in_force: ThresholdInForce | None, unknown_label: str | None
) -> bool | None:
    if choice is None or in_force is None:
        return None
    if choice.trial.right_with_unknown - in_force.outcome.right_with_unknown <= choice.tolerance_images:
        return False
    # Without an unknown label an image that nothing matches is answered all the same.
    return unknown_label is not None or choice.trial.right - in_force.outcome.right > choice.tolerance_images


def _confusion(classified: Sequence[Prediction], truths: Sequence[str], labels: Sequence[str]) -> Confusion:
    from sklearn.metrics import confusion_matrix

    if not classified:
        return Confusion(truths=[], labels=[], counts=[])
    names = list(dict.fromkeys([*truths, *labels]))
    if len(names) == 1:  # of which scikit-learn warns
        return Confusion(truths=truths, labels=labels, counts=[[len(classified)]])
    counts = confusion_matrix(
        [each.image.truth for each in classified], [each.label for each in classified], labels=names
    )
    rows, columns = ([names.index(name) for name in wanted] for wanted in (truths, labels))
    return Confusion(truths=truths, labels=labels, counts=counts[np.ix_(rows, columns)].tolist())


def _class_figures(
    classified: Sequence[Prediction], truths: Sequence[str], labels: Sequence[str]
) -> Sequence[ClassFigures]:
    from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

    if not classified:
        return []
    names = sorted({*truths, *labels})
    truth = [each.image.truth for each in classified]
    answered = Counter(each.label for each in classified)
    columns = precision_recall_fscore_support(
        truth, [each.label for each in classified], labels=names, zero_division=np.nan
    )
    figures = []
    for name, precision, recall, f1, images in zip(names, *columns, strict=True):
        notes = []
        if not answered[name]:
            notes.append("precision is not defined, since no image was given this answer")
        if not images:
            notes.append("recall and the curves are not defined, since no image is of this class")
        of_class, scores = _one_against_rest(classified, name)
        roc_auc = average_precision = None
        if scores is None:
            notes.append("no curves, since the server has no score for it")
        elif of_class.any():
            average_precision = float(average_precision_score(of_class, scores))
            if of_class.all():
                notes.append("the ROC curve is not defined, since every image is of this class")
            else:
                roc_auc = float(roc_auc_score(of_class, scores))
        figures.append(
            ClassFigures(
                name=name,
                images=int(images),
                answered=answered[name],
                precision=_defined(precision),
                recall=_defined(recall),
                f1=_defined(f1),
                roc_auc=roc_auc,
                average_precision=average_precision,
                notes=notes,
            )
        )
    return figures


def _curves(classified: Sequence[Prediction], truths: Sequence[str], server_classes: Sequence[str]) -> Curves:
    from sklearn.metrics import precision_recall_curve, roc_curve

    roc, precision_recall = [], []
    for name in sorted(set(truths) & set(server_classes)):
        of_class, scores = _one_against_rest(classified, name)
        if scores is None:
            continue
        precision, recall, _ = precision_recall_curve(of_class, scores, drop_intermediate=True)
        precision_recall.append(_curve(name, recall, precision))
        if not of_class.all():
            false_positive, true_positive, _ = roc_curve(of_class, scores)
            roc.append(_curve(name, false_positive, true_positive))
    return Curves(roc=roc, precision_recall=precision_recall)


def _curve(name: str, x: Floats, y: Floats) -> Curve:
    shown = np.unique(np.linspace(0, len(x) - 1, MAX_CURVE_POINTS).round().astype(int))
    return Curve(name=name, x=x[shown].tolist(), y=y[shown].tolist())


def _one_against_rest(classified: Sequence[Prediction], name: str) -> "tuple[NDArray[np.bool_], Floats | None]":
    of_class = np.array([each.image.truth == name for each in classified])
    if not all(name in each.scores for each in classified):
        return of_class, None
    return of_class, np.array([each.scores[name] for each in classified], float)


def _calibration(probability: Floats, right: "NDArray[np.bool_]") -> Calibration:
    edges = np.linspace(0, 1, BINS + 1)
    clipped = np.clip(probability, 0, 1)
    # As scikit-learn's calibration_curve puts them into bins.
    members = np.searchsorted(edges[1:-1], clipped)
    bins = []
    error = 0.0
    for index, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = members == index
        images = int(inside.sum())
        mean = float(clipped[inside].mean()) if images else None
        accuracy = float(right[inside].mean()) if images else None
        if mean is not None and accuracy is not None:
            error += images / len(right) * abs(accuracy - mean)
        bins.append(
            Bin(
                low=float(low),
                high=float(high),
                images=images,
                right=int(right[inside].sum()),
                mean_probability=mean,
                accuracy=accuracy,
            )
        )
    return Calibration(bins=bins, ece=error if len(right) else None)


def _histogram(probability: Floats, right: "NDArray[np.bool_]") -> Histogram:
    lowest = math.floor(min(probability.min(initial=0.9), 0.9) * 20) / 20
    edges = np.linspace(lowest, 1, round((1 - lowest) / 0.02) + 1 if lowest > 0 else 41)
    return Histogram(
        edges=edges.tolist(),
        right=np.histogram(probability[right], edges)[0].tolist(),
        wrong=np.histogram(probability[~right], edges)[0].tolist(),
    )


def _unmatched(classified: Sequence[Prediction]) -> Unmatched:
    matched = [each for each in classified if any(each.matches.values())]
    unmatched = [each for each in classified if not any(each.matches.values())]
    unknown = [each for each in classified if each.image.truth not in each.scores]
    return Unmatched(
        images=len(unmatched),
        wrong=sum(each.nearest_class != each.image.truth for each in unmatched),
        matched=len(matched),
        matched_wrong=sum(each.label != each.image.truth for each in matched),
        unknown_images=len(unknown),
        unknown_unmatched=sum(not any(each.matches.values()) for each in unknown),
    )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
