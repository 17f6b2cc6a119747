"""Images and a server's answers to them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inference_evaluation.labelled_images import LabelledImage

THRESHOLDS = np.arange(-100, 101) / 100  # every threshold with two decimals


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """An image and its answer.

    Attributes:
        image: The image.
        error: Why the image has no answer; None if it has one. The attributes below describe the answer.
        label: The label.
        probability: Highest similarity in the label's class, -1 to 1; in classification mode, the label's probability.
        scores: Highest similarity in each class; in classification mode, each class's probability.
        matches: Number of matches in each class; empty in classification mode.
        neighbors: Names and similarities of the nearest base images, best first; empty in classification mode.
        labels_at: The class that wins at each of the T ``THRESHOLDS``, even if nothing matches; None if unknown.
        matched_at: Whether anything matches at each of ``THRESHOLDS``, bool [T]; None if unknown.
    """

    image: LabelledImage
    error: str | None = None
    label: str = ""
    probability: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    matches: dict[str, int] = field(default_factory=dict)
    neighbors: Sequence[tuple[str, float]] = ()
    labels_at: Sequence[str] | None = None
    matched_at: NDArray[np.bool_] | None = None

    @property
    def is_known(self) -> bool:
        """Whether the server knows the image's class."""
        return self.image.truth in self.scores

    @property
    def is_right(self) -> bool:
        """Whether the label is the image's class; for a class that the server does not know, any label but a class."""
        return self.label == self.image.truth or not (self.is_known or self.label in self.scores)

    @property
    def is_matched(self) -> bool:
        """Whether any base image matches at the threshold in force."""
        return any(self.matches.values())

    @property
    def nearest_class(self) -> str:
        """The class with the highest score; the first of equals."""
        return max(self.scores, key=self.scores.__getitem__)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """A server's answers to all images.

    Attributes:
        predictions: One for each image, in the images' order.
        version: The version that answered; None if no image was classified.
        threshold: The threshold in force, -1 to 1; None in classification mode, or if no image was classified.
        no_trials: Why the server did not answer at other thresholds; None if it did, and in classification mode.
    """

    predictions: Sequence[Prediction]
    version: int | None
    threshold: float | None
    no_trials: str | None = None
