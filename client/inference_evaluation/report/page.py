"""The page: one HTML file that needs neither other files nor a network."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from inference_evaluation.class_figures import Confusion
from inference_evaluation.figures import Figures
from inference_evaluation.predictions import Prediction
from inference_evaluation.report import plots
from inference_evaluation.report.text import evidence, make_environment, say
from inference_evaluation.report.thumbnails import find_base_image, make_thumbnail
from inference_evaluation.thresholds import Trial

MAX_ERRORS = 24
SHOWN_NEIGHBORS = 3
MAX_MATRIX_CLASSES = 24
MAX_CONFUSIONS = 30
MAX_TRIALS = 41
MAX_REASONS = 10


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The setting of an evaluation.

    Attributes:
        folder: The folder of labelled images.
        url: The server's address.
        base_data: The folder of base images; None if it was not given.
        evaluated: Time of the evaluation.
        version: This package's version.
        empty_classes: Class folders without an image.
        notes: Sentences about entries that were left out.
    """

    folder: str
    url: str
    base_data: Path | None
    evaluated: datetime
    version: str
    empty_classes: Sequence[str]
    notes: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An image on the page; ``data`` is None if there is no thumbnail."""

    name: str
    data: str | None
    similarity: float | None = None


@dataclass(frozen=True, kw_only=True)
class WrongAnswer:
    """A wrong answer on the page."""

    picture: Picture
    truth: str
    label: str
    probability: float
    evidence: str
    neighbors: Sequence[Picture]


def render_page(figures: Figures, predictions: Sequence[Prediction], setting: Setting) -> str:
    """Render the page.

    Args:
        figures: All figures.
        predictions: All predictions. The image files of wrong answers are read again, for thumbnails.
        setting: The setting of the evaluation.

    Returns:
        The HTML.
    """
    wrong = [prediction for prediction in predictions if prediction.error is None and not prediction.is_right]
    wrong.sort(key=lambda prediction: (-prediction.probability, prediction.image.name))
    page: str = (
        make_environment(html=True)
        .get_template("page.html.j2")
        .render(
            figures=figures,
            setting=setting,
            style=Path(__file__).with_name("page.css").read_text(encoding="utf-8"),
            say=partial(say, figures=figures),
            svgs=plots.draw_all(figures),
            drawn_classes=plots.worst_separated(figures),
            confusions=_most_frequent(figures.confusion),
            max_matrix_classes=MAX_MATRIX_CLASSES,
            trials=_thinned(figures),
            wrong_answers=[_wrong_answer(prediction, setting.base_data) for prediction in wrong[:MAX_ERRORS]],
            wrong_count=len(wrong),
            reasons=list(figures.errors.items())[:MAX_REASONS],
            more_reasons=max(0, len(figures.errors) - MAX_REASONS),
        )
    )
    return page


def _wrong_answer(prediction: Prediction, base_data: Path | None) -> WrongAnswer:
    return WrongAnswer(
        picture=Picture(name=prediction.image.name, data=make_thumbnail(prediction.image.path)),
        truth=prediction.image.truth,
        label=prediction.label,
        probability=prediction.probability,
        evidence=evidence(prediction.matches, prediction.label, prediction.image.truth),
        neighbors=[
            Picture(name=name, data=_base_thumbnail(base_data, name), similarity=similarity)
            for name, similarity in prediction.neighbors[:SHOWN_NEIGHBORS]
        ],
    )


def _base_thumbnail(base_data: Path | None, name: str) -> str | None:
    file = None if base_data is None else find_base_image(base_data, name)
    return None if file is None else make_thumbnail(file)


def _most_frequent(confusion: Confusion) -> Sequence[tuple[int, str, str]]:
    """List the most frequent confusions, for a matrix that is too large to read."""
    confusions = [
        (images, truth, label)
        for truth, row in zip(confusion.truths, confusion.counts, strict=True)
        for label, images in zip(confusion.labels, row, strict=True)
        if images and truth != label
    ]
    return sorted(confusions, key=lambda confusion: (-confusion[0], confusion[1:]))[:MAX_CONFUSIONS]


def _thinned(figures: Figures) -> Sequence[Trial]:
    """Take evenly spaced trials, as many as a table can show, and the trial of the recommended threshold."""
    step = max(1, -(-len(figures.trials) // MAX_TRIALS))
    chosen = figures.choice.threshold if figures.choice else None
    return [trial for index, trial in enumerate(figures.trials) if not index % step or trial.threshold == chosen]
