"""The page: one HTML file that needs nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from inference_client.command_line.formatting import printable
from inference_evaluation.asking import Prediction
from inference_evaluation.figures import Confusion, Figures, is_right
from inference_evaluation.report import plots, words
from inference_evaluation.report.thumbnails import base_image, thumbnail
from inference_evaluation.thresholds import Trial

TEMPLATE, STYLE = "report.html.j2", "report.css"
MAX_ERRORS = 24
SHOWN_NEIGHBORS = 3
MAX_MATRIX_CLASSES = 24
MAX_CONFUSIONS = 30
MAX_TRIALS = 41
MAX_REASONS = 10


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What was evaluated, and with what.

    Attributes:
        folder: The folder with the images.
        url: The server's address.
        base_data: The base images; None if they are not at hand.
        evaluated: When.
        version: Of this package.
        empty_classes: Class folders without an image.
        notes: What was left out of the folder.
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
    """An image with what to write under it; ``data`` is None where no thumbnail could be made."""

    name: str
    data: str | None
    similarity: float | None = None


@dataclass(frozen=True, kw_only=True)
class WrongAnswer:
    """One of the errors that are shown."""

    picture: Picture
    truth: str
    label: str
    probability: float
    evidence: str
    neighbors: Sequence[Picture]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot with its text alternative."""

    name: str
    svg: str
    text: str


def render(figures: Figures, predictions: Sequence[Prediction], setting: Setting) -> str:
    """Render the page.

    Args:
        figures: Of the evaluation.
        predictions: Every one; their files are read again for thumbnails.
        setting: Of the evaluation.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "percent": words.percent,
        "figure": words.figure,
        "count": words.count,
        "interval": words.interval,
        "printable": printable,
    }
    environment.filters.update(filters)
    errors = _errors(predictions)
    page: str = environment.get_template(TEMPLATE).render(
        figures=figures,
        setting=setting,
        style=_style(),
        words=words,
        plots={each.name: each for each in _plots(figures)},
        confusions=_confusions(figures.confusion),
        max_matrix_classes=MAX_MATRIX_CLASSES,
        trials=_thinned(figures),
        errors=[_wrong_answer(each, setting.base_data) for each in errors[:MAX_ERRORS]],
        error_count=len(errors),
        reasons=list(figures.errors.items())[:MAX_REASONS],
        more_reasons=max(0, len(figures.errors) - MAX_REASONS),
    )
    return page


def _style() -> str:
    return (Path(__file__).with_name(STYLE)).read_text(encoding="utf-8")


def _errors(predictions: Sequence[Prediction]) -> Sequence[Prediction]:
    wrong = [each for each in predictions if each.error is None and not is_right(each)]
    return sorted(wrong, key=lambda each: (-each.probability, each.image.name))


def _wrong_answer(prediction: Prediction, base_data: Path | None) -> WrongAnswer:
    return WrongAnswer(
        picture=Picture(name=prediction.image.name, data=thumbnail(prediction.image.path)),
        truth=prediction.image.truth,
        label=prediction.label,
        probability=prediction.probability,
        evidence=words.evidence(prediction.matches, prediction.label, prediction.image.truth),
        neighbors=[
            Picture(name=name, data=_base_thumbnail(base_data, name), similarity=similarity)
            for name, similarity in prediction.neighbors[:SHOWN_NEIGHBORS]
        ],
    )


def _base_thumbnail(base_data: Path | None, name: str) -> str | None:
    file = None if base_data is None else base_image(base_data, name)
    return None if file is None else thumbnail(file)


def _confusions(confusion: Confusion) -> Sequence[tuple[int, str, str]]:
    """List the most frequent errors, for where the matrix is too large to be read."""
    found = [
        (number, truth, label)
        for truth, row in zip(confusion.truths, confusion.counts, strict=True)
        for label, number in zip(confusion.labels, row, strict=True)
        if number and truth != label
    ]
    return sorted(found, key=lambda each: (-each[0], each[1:]))[:MAX_CONFUSIONS]


def _thinned(figures: Figures) -> Sequence[Trial]:
    """Leave out trials, at even distances but never the recommended one, until they make a table of readable length."""
    step = -(-len(figures.trials) // MAX_TRIALS)
    chosen = figures.choice.trial.threshold if figures.choice else None
    return [each for index, each in enumerate(figures.trials) if not index % max(1, step) or each.threshold == chosen]


def _plots(figures: Figures) -> list[Plot]:
    if not figures.classified:
        return []
    shown = plots.smallest_areas(figures)
    drawn = {each.name for each in figures.curves.roc} & set(shown)
    found = []
    if drawn:
        areas = "; ".join(
            f"{printable(each.name)} {each.roc_auc:.3f}"
            for each in figures.classes
            if each.name in drawn and each.roc_auc is not None
        )
        found.append(
            Plot(name="roc", svg=plots.draw_roc(figures, shown), text=f"ROC curves; area under each: {areas}.")
        )
    if shown:
        averages = "; ".join(
            f"{printable(each.name)} {each.average_precision:.3f}"
            for each in figures.classes
            if each.name in shown and each.average_precision is not None
        )
        found.append(
            Plot(
                name="precision_recall",
                svg=plots.draw_precision_recall(figures, shown),
                text=f"Precision-recall curves; average precision of each: {averages}.",
            )
        )
    found += [
        Plot(
            name="calibration",
            svg=plots.draw_calibration(figures),
            text=f"Reliability diagram. {words.calibration(figures)} Each bin is in the table below.",
        ),
        Plot(
            name="histogram",
            svg=plots.draw_histogram(figures),
            text=f"Histogram of {sum(figures.histogram.right):,} right and {sum(figures.histogram.wrong):,} wrong "
            "answers. Each bar is in the table below.",
        ),
    ]
    if figures.trials:
        recommended = f" {words.recommendation(figures)[0]}" if figures.choice else ""
        found.append(
            Plot(
                name="thresholds",
                svg=plots.draw_thresholds(figures),
                text=f"Accuracy and coverage against thresholds of {figures.trials[0].threshold:.2f} to "
                f"{figures.trials[-1].threshold:.2f}.{recommended} The numbers are in the table below.",
            )
        )
    return found
