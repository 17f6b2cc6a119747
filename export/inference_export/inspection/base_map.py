"""A map of the base embeddings: a point for each base image, similar images near each other."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_export.base_set.scoring import Float32, Index

# Okabe and Ito's colors, for people with any color vision, without yellow, which is too pale. 7 colors and 4 markers
# have no common divisor, so each class gets its own pair.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D")
MAX_NAMED = len(COLORS) * len(MARKERS)
MAX_POINTS = 20_000
REST_COLOR = "#BBBBBB"
LEGEND_AREA = 36
_NAME_LENGTH = 32


def principal_plane(embeddings: Float32) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Project embeddings to their first two principal components.

    Args:
        embeddings: Embeddings, float32 [B, D]. May be mapped from a file.

    Returns:
        Coordinates, float64 [B, 2], and the share of the variance that each component explains, float64 [2].

    Source:
        Pearson, "On lines and planes of closest fit to systems of points in space", Philosophical Magazine 1901.
    """
    from sklearn.decomposition import PCA

    count = min(2, *embeddings.shape)
    plane, shares = np.zeros((len(embeddings), 2)), np.zeros(2)
    pca = PCA(count, svd_solver="covariance_eigh", copy=False)  # this solver leaves the embeddings unchanged
    with np.errstate(invalid="ignore"):  # equal embeddings have no variance to share
        plane[:, :count] = pca.fit_transform(embeddings)
        shares[:count] = np.nan_to_num(pca.explained_variance_ratio_)
    return plane, shares


def draw_map(
    file: Path, embeddings: Float32, class_starts: Index, classes: list[str], *, misplaced: Index, title: str
) -> None:
    """Draw the map as PNG.

    Args:
        file: The file to write.
        embeddings: L2-normalized base embeddings, float32 [B, D], one class after another.
        class_starts: First row of each class, ascending integers [C] from 0.
        classes: Class names [C]. Up to ``MAX_NAMED`` of the largest classes get a color and marker of their own.
        misplaced: Rows of images that are closer to another class than to their own. A ring marks each.
        title: The map's title.

    Raises:
        OSError: The file can't be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    plane, shares = principal_plane(embeddings)
    x, y = plane.T
    sizes = np.diff([*class_starts, len(embeddings)])
    class_of = np.repeat(np.arange(len(classes)), sizes)
    step = -(-len(plane) // MAX_POINTS)
    drawn = np.unique([*range(0, len(plane), step), *class_starts])
    largest = np.argsort(-sizes, kind="stable")[: MAX_NAMED if len(classes) <= MAX_NAMED else MAX_NAMED - 1]
    named = sorted(int(index) for index in largest)
    area = float(np.clip(20_000 / len(drawn), 4, 48))
    figure = Figure(figsize=(10, 7.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    handles, labels = [], []
    for order, index in enumerate(named):
        points = drawn[class_of[drawn] == index]
        color, marker = COLORS[order % len(COLORS)], MARKERS[order % len(MARKERS)]
        handles.append(axes.scatter(x[points], y[points], s=area, c=color, marker=marker, alpha=0.7, linewidths=0))
        labels.append(f"{_short(classes[index])} ({sizes[index]})")
    rest = drawn[~np.isin(class_of[drawn], named)]
    if len(rest):
        handles.append(axes.scatter(x[rest], y[rest], s=area, c=REST_COLOR, linewidths=0, zorder=0.9))
        labels.append(f"{len(classes) - len(named)} other classes")
    if len(misplaced):
        rings: dict[str, Any] = {"facecolors": "none", "edgecolors": "black", "linewidths": 0.8}
        handles.append(axes.scatter(x[misplaced], y[misplaced], s=2 * area + 40, **rings))
        labels.append(f"closer to another class ({len(misplaced)})")
    sampled = "" if step == 1 else f", {len(drawn)} of them drawn"
    axes.set_title(f"{title}{sampled}", parse_math=False, loc="left")
    axes.set_xlabel(f"first principal component, {shares[0]:.0%} of the variance")
    axes.set_ylabel(f"second principal component, {shares[1]:.0%}")
    axes.grid(color="#E5E5E5", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    # The texts are set later: matplotlib leaves out a label that begins with _.
    legend = figure.legend(handles, ["label"] * len(handles), loc="outside right upper", frameon=False, fontsize=9)
    drawn_handles: list[Any] = list(legend.legend_handles)
    for handle in drawn_handles:
        handle.set_sizes([LEGEND_AREA])
        handle.set_alpha(1)
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)
        text.set_parse_math(False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks shows as boxes
        figure.savefig(file, format="png")


def _short(name: str) -> str:
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"
