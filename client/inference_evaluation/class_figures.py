"""Figures of each class against all others, and confusions between classes."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_evaluation.predictions import Prediction

MAX_CURVE_POINTS = 500


@dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """One class against all others.

    Attributes:
        name: The class.
        images: Classified images of this class.
        answered: Images with this label.
        precision: Share of ``answered`` that is of this class.
        recall: Share of ``images`` that has this label.
        f1: Harmonic mean of precision and recall.
        roc_auc: Area under the ROC curve of the class's score.
        average_precision: Area under the precision-recall curve of the class's score.
        notes: Why figures are None.
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
    """A curve of one class. ``x`` and ``y`` have the same length, at most ``MAX_CURVE_POINTS``."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Curves of each class against all others, by the class's score."""

    roc: Sequence[Curve]
    precision_recall: Sequence[Curve]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Number of images by class (rows) and label (columns)."""

    truths: Sequence[str]
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]


def count_confusions(classified: Sequence[Prediction], truths: Sequence[str], labels: Sequence[str]) -> Confusion:
    """Count the images of each class (``truths``) with each label."""
    pairs = Counter((prediction.image.truth, prediction.label) for prediction in classified)
    counts = [[pairs[truth, label] for label in labels] for truth in truths]
    return Confusion(truths=truths, labels=labels, counts=counts)


def compare_classes(classified: Sequence[Prediction], names: Sequence[str]) -> tuple[Sequence[ClassFigures], Curves]:
    """Compute each class's figures and curves.

    Args:
        classified: The images with an answer.
        names: The classes.
    """
    from sklearn.metrics import precision_recall_fscore_support

    if not classified:
        return [], Curves(roc=[], precision_recall=[])
    truths = [prediction.image.truth for prediction in classified]
    labels = [prediction.label for prediction in classified]
    columns = precision_recall_fscore_support(truths, labels, labels=names, zero_division=np.nan)
    answered = Counter(labels)
    figures, roc, precision_recall = [], [], []
    for name, precision, recall, f1, images in zip(names, *columns, strict=True):
        notes = []
        if not answered[name]:
            notes.append("precision is not defined, since no image got this label")
        if not images:
            notes.append("recall and the curves are not defined, since no image is of this class")
        of_class = np.array([truth == name for truth in truths])
        roc_auc = average_precision = None
        if not all(name in prediction.scores for prediction in classified):
            notes.append("the curves are not defined, since the server has no score for this class")
        elif images:
            scores = np.array([prediction.scores[name] for prediction in classified])
            curve, average_precision = _precision_recall(name, of_class, scores)
            precision_recall.append(curve)
            if of_class.all():
                notes.append("the ROC curve is not defined, since every image is of this class")
            else:
                curve, roc_auc = _roc(name, of_class, scores)
                roc.append(curve)
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
    return figures, Curves(roc=roc, precision_recall=precision_recall)


def _precision_recall(name: str, of_class: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[Curve, float]:
    from sklearn.metrics import average_precision_score, precision_recall_curve

    precision, recall, _ = precision_recall_curve(of_class, scores, drop_intermediate=True)
    return _curve(name, recall, precision), float(average_precision_score(of_class, scores))


def _roc(name: str, of_class: NDArray[np.bool_], scores: NDArray[np.float64]) -> tuple[Curve, float]:
    from sklearn.metrics import roc_auc_score, roc_curve

    false_positive, true_positive, _ = roc_curve(of_class, scores)
    return _curve(name, false_positive, true_positive), float(roc_auc_score(of_class, scores))


def _curve(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> Curve:
    shown = np.unique(np.linspace(0, len(x) - 1, MAX_CURVE_POINTS).round().astype(int))
    return Curve(name=name, x=x[shown].tolist(), y=y[shown].tolist())


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
