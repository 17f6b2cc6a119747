"""The plots, as SVG that takes its colors from the page: so they read in its light, its dark and its print colors."""

import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from inference_client.command_line.formatting import printable
from inference_evaluation.figures import CLUSTERING, Curve, Figures
from inference_evaluation.report.words import threshold_in_force

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_IN, HEIGHT_IN = 4.8, 3.3
LONGEST_NAME = 24
MAX_CURVES = 6

# Stand-ins, each of which becomes a color of the page's style sheet.
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


def draw_roc(figures: Figures, shown: Sequence[str]) -> str:
    """Draw the ROC curves of the classes in ``shown``."""

    def draw(axes: "Axes") -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":", label="by chance")
        _draw_curves(axes, figures.curves.roc, shown, {each.name: each.roc_auc for each in figures.classes}, "area")
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")

    return _svg("roc", draw)


def draw_precision_recall(figures: Figures, shown: Sequence[str]) -> str:
    """Draw the precision-recall curves of the classes in ``shown``."""

    def draw(axes: "Axes") -> None:
        averages = {each.name: each.average_precision for each in figures.classes}
        _draw_curves(axes, figures.curves.precision_recall, shown, averages, "average", drawstyle="steps-post")
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")

    return _svg("precision-recall", draw)


def draw_calibration(figures: Figures) -> str:
    """Draw the reliability diagram."""

    def draw(axes: "Axes") -> None:
        bins = [each for each in figures.calibration.bins if each.images]
        centers = [(each.low + each.high) / 2 for each in bins]
        accuracies = [_number(each.accuracy) for each in bins]
        axes.bar(centers, accuracies, width=0.094, color=RIGHT, alpha=0.35, label="accuracy of the answers in a bin")
        axes.plot(
            [_number(each.mean_probability) for each in bins],
            accuracies,
            "o",
            color=RIGHT,
            markersize=5,
            label="at their mean " + _axis_name(figures),
        )
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":", label="well calibrated")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel(_axis_name(figures) + " of the answer")
        axes.set_ylabel("share of right answers")

    return _svg("calibration", draw)


def draw_histogram(figures: Figures) -> str:
    """Draw how many right and wrong answers there are by similarity or probability."""
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
        axes.set_xlabel(_axis_name(figures) + " of the answer")
        axes.set_ylabel("images")

    return _svg("histogram", draw)


def draw_thresholds(figures: Figures) -> str:
    """Draw accuracy, on an axis that begins where it tells something, above coverage, against the threshold."""
    trials, images = figures.trials, figures.classified
    thresholds = [each.threshold for each in trials]
    # Of answers that nothing matches there is no accuracy.
    of_matched = [each.matched_right / each.matched if each.matched else math.nan for each in trials]
    of_all = [each.right / images for each in trials] if figures.mode == CLUSTERING else []
    lowest = _axis_begin([each for each in (*of_matched, *of_all) if not math.isnan(each)])

    def draw_accuracy(axes: "Axes") -> None:
        if of_all:
            axes.plot(thresholds, of_all, color=SERIES[0], linestyle=LINES[0], label="accuracy of all answers")
        axes.plot(
            thresholds, of_matched, color=SERIES[1], linestyle=LINES[1], label="accuracy of those " + _kept(figures)
        )
        axes.set_ylim(lowest, 1 + 0.03 * (1 - lowest))
        axes.set_ylabel(f"accuracy, from {lowest:g}" if lowest else "accuracy")
        _mark_thresholds(axes, figures, labelled=True)

    def draw_coverage(axes: "Axes") -> None:
        coverage = [each.matched / images for each in trials]
        axes.plot(thresholds, coverage, color=SERIES[2], linestyle=LINES[2], label="coverage: share " + _kept(figures))
        axes.set_ylim(0, 1.05)
        axes.set_xlim(*_threshold_axis(figures))
        axes.set_xlabel("threshold of " + _axis_name(figures))
        axes.set_ylabel("coverage")
        _mark_thresholds(axes, figures, labelled=False)

    return _svg("thresholds", draw_accuracy, draw_coverage, heights=(3, 2))


def _axis_begin(shares: Sequence[float]) -> float:
    """Choose where an axis of shares begins, so that the lowest lies a third above it and 1 at the top.

    >>> _axis_begin([0.983, 1.0]), _axis_begin([0.7, 0.9]), _axis_begin([0.1]), _axis_begin([])
    (0.95, 0.5, 0.0, 0.0)
    """
    below = 1 - min(shares, default=0.0)
    return next((1 - span for span in (0.01, 0.05, 0.1, 0.2, 0.5) if below <= 0.7 * span), 0.0)


def _threshold_axis(figures: Figures) -> tuple[float, float]:
    first, last = figures.trials[0].threshold, figures.trials[-1].threshold
    given = figures.threshold.given if figures.threshold is not None else None
    if given is not None:
        first, last = min(first, given), max(last, given)
    return first, max(last, first + 0.01)


def _mark_thresholds(axes: "Axes", figures: Figures, *, labelled: bool) -> None:
    def label(text: str) -> str:
        return text if labelled else "_"  # which a legend leaves out

    in_force, choice = figures.threshold, figures.choice
    if choice is not None:
        axes.axvspan(choice.low, choice.high, color=SERIES[3], alpha=0.14, linewidth=0)
        word = "recommended" if figures.change_advised else "middle of those that do as well"
        axes.axvline(choice.threshold, color=SERIES[3], linewidth=1.6, label=label(f"{word}: {choice.threshold:.2f}"))
    if in_force is None:
        return
    if in_force.given is not None:
        text = f"in force: {in_force.given:g}"
        axes.axvline(in_force.given, color=INK, linewidth=1.4, linestyle=":", label=label(text))
    elif in_force.above is not None or in_force.below is not None:
        first, last = _threshold_axis(figures)
        above = first if in_force.above is None else max(in_force.above, first)
        below = last if in_force.below is None else min(in_force.below, last)
        text = threshold_in_force(in_force).removeprefix("the server's own, ")
        axes.axvspan(
            above, below, facecolor=INK, alpha=0.3, edgecolor=INK, linewidth=1, label=label(f"in force: {text}")
        )


def smallest_areas(figures: Figures) -> Sequence[str]:
    """Choose the classes whose curves are drawn: those the scores separate worst, in the order of their names."""
    known = [each for each in figures.classes if each.average_precision is not None]
    chosen = sorted(known, key=lambda each: (each.roc_auc if each.roc_auc is not None else 1.0, each.name))
    return sorted(each.name for each in chosen[:MAX_CURVES])


def _number(figure: float | None) -> float:
    return math.nan if figure is None else figure


def _axis_name(figures: Figures) -> str:
    return "similarity" if figures.mode == CLUSTERING else "probability"


def _kept(figures: Figures) -> str:
    return "with a match" if figures.mode == CLUSTERING else "at or above it"


def _draw_curves(
    axes: "Axes",
    curves: Sequence[Curve],
    shown: Sequence[str],
    summaries: dict[str, float | None],
    word: str,
    **style: Any,
) -> None:
    for number, name in enumerate(shown):
        for curve in (each for each in curves if each.name == name):
            label = f"{_short(name)} ({word} {summaries[name]:.3f})"
            axes.plot(curve.x, curve.y, color=SERIES[number], linestyle=LINES[number], label=label, **style)
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(0, 1.02)


def _short(name: str) -> str:
    text = printable(name)
    # A legend leaves out what begins with an underscore.
    text = f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _svg(name: str, *draw: Callable[["Axes"], None], heights: Sequence[float] = (1,)) -> str:
    """Draw one panel, or several on the same x axis, one above the other."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_RC), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about glyphs that matplotlib's font lacks: the page's has them
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
    """Make an SVG file a part of a page: ids of its own, the page's colors and font, no size."""
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
