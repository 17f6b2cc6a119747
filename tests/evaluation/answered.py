"""Answers made by hand, for cases that the tests' servers never give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inference_evaluation.labelled_images import LabelledImage
from inference_evaluation.predictions import THRESHOLDS, Answers, Prediction

NAMES = ("a", "b")


def matched(
    truth: str, similarities: dict[str, Sequence[float]], *, threshold: float = 0.75, unknown_label: str | None = None
) -> Prediction:
    """Answer an image as the server would, given its similarities with the base images of each class."""

    def count(at: float) -> dict[str, int]:
        return {name: sum(value >= at for value in values) for name, values in similarities.items()}

    def best(at: float) -> str:
        matches = count(at)
        return max(similarities, key=lambda name: (matches[name], max(similarities[name])))

    label = best(threshold)
    if unknown_label is not None and not any(count(threshold).values()):
        label = unknown_label
    scores = {name: max(values) for name, values in similarities.items()}
    return Prediction(
        image=LabelledImage(path=Path(truth) / "image.png", truth=truth),
        label=label,
        probability=scores.get(label, max(scores.values())),
        scores=scores,
        matches=count(threshold),
        neighbors=[(f"{name}/base.png", value) for name, value in scores.items()],
        labels_at=[best(at) for at in THRESHOLDS],
        matched_at=np.array([any(count(at).values()) for at in THRESHOLDS]),
    )


def classified(truth: str, probabilities: dict[str, float]) -> Prediction:
    """Answer an image as a server in classification mode would."""
    label = max(probabilities, key=probabilities.__getitem__)
    return Prediction(
        image=LabelledImage(path=Path(truth) / "image.png", truth=truth),
        label=label,
        probability=probabilities[label],
        scores=probabilities,
    )


def undecodable(truth: str) -> Prediction:
    return Prediction(image=LabelledImage(path=Path(truth) / "bad.png", truth=truth), error="truncated")


def answers(predictions: Sequence[Prediction], *, threshold: float = 0.75, no_trials: str | None = None) -> Answers:
    return Answers(predictions=predictions, version=1, threshold=threshold, no_trials=no_trials)
