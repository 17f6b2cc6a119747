"""The plots: SVG that takes its colors from the page, and so is readable in light, in dark and in print."""

import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from inference_client.command_line.formatting import printable
from inference_evaluation.class_figures import Curve
from inference_evaluation.figures import CLUSTERING, Figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_IN, HEIGHT_IN = 4.8, 3.3
LONGEST_NAME = 24
MAX_CURVES = 6

# Placeholders: ``_inline`` replaces each with a color variable of page.css.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES = ("#040401", "#040402", "#040403", "#040404", "#040405", "#040406")
RIGHT, WRONG = SERIES[0], SERIES[1]
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    **{color: f"--series-{number}" for number, color in enumerate(SERIES, start=1)},
}
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)))
HATCH = "////"

_RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "evaluation",
    "text.parse_math": False,  # a class may be called $x
    "font.size": 9.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "hatch.color": INK,
    "hatch.linewidth": 0.5,
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "lines.linewidth": 1.8,
}


def draw_all(figures: Figures) -> dict[str, str]:
    """Draw every plot that is defined.

    Returns:
        SVG elements by the plot's name.
    """
    if not figures.classified:
        return {}
    shown = worst_separated(figures)
    drawn = {"calibration": draw_calibration(figures), "histogram": draw_histogram(figures)}
    if any(curve.name in shown for curve in figures.curves.roc):
        drawn["roc"] = draw_roc(figures, shown)
    if shown:
        drawn["precision_recall"] = draw_precision_recall(figures, shown)
    if figures.trials:
        drawn["thresholds"] = draw_thresholds(figures)
    return drawn


def worst_separated(figures: Figures) -> Sequence[str]:
    """Choose the classes whose curves are drawn: the ``MAX_CURVES`` with the smallest areas, sorted by name."""
    scored = [of_class for of_class in figures.classes if of_class.average_precision is not None]
    scored.sort(key=lambda of_class: (1.0 if of_class.roc_auc is None else of_class.roc_auc, of_class.name))
    return sorted(of_class.name for of_class in scored[:MAX_CURVES])


def draw_roc(figures: Figures, shown: Sequence[str]) -> str:
    """Draw the ROC curves of the classes in ``shown``."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":", label="by chance")
        areas = {
            of_class.name: f"area {of_class.roc_auc:.3f}"
            for of_class in figures.classes
            if of_class.roc_auc is not None
        }
        _draw_curves(axes, figures.curves.roc, shown, areas)
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")

    return _svg("roc", draw)


def draw_precision_recall(figures: Figures, shown: Sequence[str]) -> str:
    """Draw the precision-recall curves of the classes in ``shown``."""

    def draw(axes: "Axes") -> None:
        averages = {
            of_class.name: f"average {of_class.average_precision:.3f}"
            for of_class in figures.classes
            if of_class.average_precision is not None
        }
        _draw_curves(axes, figures.curves.precision_recall, shown, averages, drawstyle="steps-post")
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")

    return _svg("precision-recall", draw)


def draw_calibration(figures: Figures) -> str:
    """Draw the reliability diagram."""

    def draw(axes: "Axes") -> None:
        occupied = [bin_ for bin_ in figures.calibration.bins if bin_.images]
        centers = [(bin_.low + bin_.high) / 2 for bin_ in occupied]
        accuracies = [bin_.right / bin_.images for bin_ in occupied]
        means = [bin_.mean_probability for bin_ in occupied if bin_.mean_probability is not None]
        axes.bar(centers, accuracies, width=0.094, color=RIGHT, alpha=0.35, label="accuracy of the answers in a bin")
        axes.plot(means, accuracies, "o", color=RIGHT, markersize=5, label=f"at their mean {_axis_name(figures)}")
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":", label="well calibrated")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(f"{_axis_name(figures)} of the answer")
        axes.set_ylabel("share of right answers")

    return _svg("calibration", draw)


def draw_histogram(figures: Figures) -> str:
    """Draw the number of right and wrong answers by similarity or probability."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: "Axes") -> None:
        histogram = figures.histogram
        edges = histogram.edges
        widths = [high - low for low, high in itertools.pairwise(edges)]
        axes.bar(edges[:-1], histogram.right, widths, align="edge", color=RIGHT, edgecolor=INK, linewidth=0.4,
                 label="right")  # fmt: skip
        axes.bar(edges[:-1], histogram.wrong, widths, histogram.right, align="edge", color=WRONG, edgecolor=INK,
                 linewidth=0.4, hatch=HATCH, label="wrong")  # fmt: skip
        axes.set_xlim(edges[0], edges[-1])
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(f"{_axis_name(figures)} of the answer")
        axes.set_ylabel("images")

    return _svg("histogram", draw)


def draw_thresholds(figures: Figures) -> str:
    """Draw accuracy above coverage, both against the threshold."""
    trials, images = figures.trials, figures.classified
    thresholds = [trial.threshold for trial in trials]
    of_matched = [trial.matched_right / trial.matched if trial.matched else math.nan for trial in trials]
    of_all = [trial.right / images for trial in trials] if figures.mode == CLUSTERING else []
    lowest = _axis_start([share for share in (*of_matched, *of_all) if not math.isnan(share)])
    kept = "with a match" if figures.mode == CLUSTERING else "at or above the threshold"

    def draw_accuracy(axes: "Axes") -> None:
        if of_all:
            axes.plot(thresholds, of_all, color=SERIES[0], linestyle=LINES[0], label="accuracy of all answers")
        axes.plot(thresholds, of_matched, color=SERIES[1], linestyle=LINES[1], label=f"accuracy of answers {kept}")
        axes.set_ylim(lowest, 1 + 0.03 * (1 - lowest))
        axes.set_ylabel(f"accuracy, from {lowest:g}" if lowest else "accuracy")
        _mark_thresholds(axes, figures, labelled=True)

    def draw_coverage(axes: "Axes") -> None:
        coverage = [trial.matched / images for trial in trials]
        axes.plot(thresholds, coverage, color=SERIES[2], linestyle=LINES[2], label=f"coverage: share {kept}")
        axes.set_ylim(0, 1.05)
        in_force = [figures.threshold.value] if figures.threshold else []
        axes.set_xlim(min([thresholds[0], *in_force]), max([thresholds[-1], *in_force, thresholds[0] + 0.01]))
        axes.set_xlabel(f"threshold of {_axis_name(figures)}")
        axes.set_ylabel("coverage")
        _mark_thresholds(axes, figures, labelled=False)

    return _svg("thresholds", draw_accuracy, draw_coverage, heights=(3, 2))


def _axis_start(shares: Sequence[float]) -> float:
    """Choose the start of an axis of shares. The lowest share then lies at least 30 % of the way up.

    >>> _axis_start([0.983, 1.0]), _axis_start([0.7, 0.9]), _axis_start([0.1]), _axis_start([])
    (0.95, 0.5, 0.0, 0.0)
    """
    below = 1 - min(shares, default=0.0)
    return next((1 - span for span in (0.01, 0.05, 0.1, 0.2, 0.5) if below <= 0.7 * span), 0.0)


def _mark_thresholds(axes: "Axes", figures: Figures, *, labelled: bool) -> None:
    def label(text: str) -> str:
        return text if labelled else "_"  # a label that the legend leaves out

    in_force, choice = figures.threshold, figures.choice
    if choice is not None:
        axes.axvspan(choice.low, choice.high, color=SERIES[3], alpha=0.14, linewidth=0)
        text = f"{'recommended' if figures.change_advised else 'middle of the best range'}: {choice.threshold:.2f}"
        axes.axvline(choice.threshold, color=SERIES[3], linewidth=1.6, label=label(text))
    if in_force is not None:
        text = f"in force: {in_force.value:g}"
        axes.axvline(in_force.value, color=INK, linewidth=1.4, linestyle=":", label=label(text))


def _axis_name(figures: Figures) -> str:
    return "similarity" if figures.mode == CLUSTERING else "probability"


def _draw_curves(
    axes: "Axes", curves: Sequence[Curve], shown: Sequence[str], summaries: dict[str, str], **style: Any
) -> None:
    for curve in curves:
        if curve.name in shown:
            number = shown.index(curve.name)
            label = f"{_short(curve.name)} ({summaries[curve.name]})"
            axes.plot(curve.x, curve.y, color=SERIES[number], linestyle=LINES[number], label=label, **style)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(0, 1.02)


def _short(name: str) -> str:
    text = printable(name)
    # A legend leaves out labels that begin with an underscore.
    text = f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _svg(name: str, *draw: Callable[["Axes"], None], heights: Sequence[float] = (1,)) -> str:
    """Draw panels, the first on top, with the same x axis."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_RC), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # matplotlib's font may lack glyphs that the browser's fonts have
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        panels = figure.subplots(len(draw), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for draw_panel, axes in zip(draw, panels, strict=True):
            draw_panel(axes)
        figure.legend(loc="outside lower left", ncols=1)
        labels = sum(len(axes.get_legend_handles_labels()[1]) for axes in panels)
        figure.set_figheight(HEIGHT_IN * (1 + 0.35 * (len(draw) - 1)) + 0.18 * labels)
        written = io.BytesIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(name, written.getvalue().decode())


def _inline(name: str, text: str) -> str:
    """Turn an SVG file into a part of the page: unique ids, the page's colors and font, no size."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(
        r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r"<svg \1 aria-hidden='true' focusable='false'>", body, count=1
    )
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r"url\(#", f"url(#{name}-", body)
    body = re.sub(r'xlink:href="#', f'href="#{name}-', body)
    body = re.sub(r"font: ([0-9.]+px)[^;\"]*", r"font-size: \1", body)
    for color, variable in _VARIABLES.items():
        body = body.replace(color, f"var({variable})")
    return body
