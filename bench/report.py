"""The report of a benchmark: figures with their targets, tables, a JSON file and a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click

from inference_client.command_line.formatting import table_lines


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure, measured several times.

    Attributes:
        name: Name of the figure.
        values: The measurements, one for each round.
        unit: Unit of the values; empty for a ratio.
        at_least: Lowest median that meets the target, or None.
        at_most: Highest median that meets the target, or None.
        notes: Lines that explain the figure.
    """

    name: str
    values: Sequence[float]
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    notes: Sequence[str] = ()

    @property
    def median(self) -> float:
        """Median of the measurements."""
        return statistics.median(self.values)

    @property
    def verdict(self) -> str:
        """``met`` or ``MISSED``; empty if there is no target."""
        if self.at_least is None and self.at_most is None:
            return ""
        reached = (self.at_least is None or self.median >= self.at_least) and (
            self.at_most is None or self.median <= self.at_most
        )
        return "met" if reached else "MISSED"

    @property
    def target(self) -> str:
        """The target in words; empty if there is no target."""
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return "" if self.at_most is None else f"at most {self.at_most:g}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contender under one load, over all rounds.

    Attributes:
        name: Name of the contender.
        clients: Number of requests in flight; None if the contender chooses.
        throughput: Images per second.
        p50_ms: Median latency in milliseconds, or None.
        p95_ms: 95th percentile of the latency in milliseconds, or None.
        p99_ms: 99th percentile of the latency in milliseconds, or None.
        cpu_s_per_image: CPU time of the server per image, in seconds, or None.
        peak_mb: Largest memory of the server, in MB, or None.
    """

    name: str
    clients: int | None
    throughput: float
    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    cpu_s_per_image: float | None = None
    peak_mb: float | None = None


@dataclass(kw_only=True)
class Report:
    """All results of a run.

    Attributes:
        machine: Description of the machine and the packages.
        figures: All figures.
        rows: All contenders.
    """

    machine: Mapping[str, Any]
    figures: list[Figure] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write ``bench.json``, and ``bench.png`` if there are rows."""
        folder.mkdir(parents=True, exist_ok=True)
        figures = [{**asdict(figure), "median": figure.median, "verdict": figure.verdict} for figure in self.figures]
        content = {"machine": self.machine, "figures": figures, "rows": [asdict(row) for row in self.rows]}
        (folder / "bench.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if self.rows:
            _plot(self.rows, folder / "bench.png")

    def show(self) -> None:
        """Print the tables."""
        if self.rows:
            headings = ["", "clients", "images/s", "p50 ms", "p95 ms", "p99 ms", "CPU s/image", "peak MB"]
            click.echo("\n".join(table_lines([headings, *(_cells(row) for row in self.rows)])))
            click.echo()
        lines = [["figure", "median", "of", "target", ""]]
        for figure in self.figures:
            spread = f"{_short(min(figure.values))} to {_short(max(figure.values))}, {len(figure.values)} rounds"
            lines.append([figure.name, f"{_short(figure.median)} {figure.unit}", spread, figure.target, figure.verdict])
        click.echo("\n".join(table_lines(lines)))
        for figure in self.figures:
            for note in figure.notes:
                click.echo(f"{figure.name}: {note}")


def merge(rows: Sequence[Row]) -> Row:
    """Combine one contender's rows: medians, and the largest memory."""

    def middle(name: str) -> float | None:
        values = [value for value in (getattr(row, name) for row in rows) if value is not None]
        return statistics.median(values) if values else None

    peaks = [row.peak_mb for row in rows if row.peak_mb is not None]
    return Row(
        name=rows[0].name,
        clients=rows[0].clients,
        throughput=statistics.median(row.throughput for row in rows),
        p50_ms=middle("p50_ms"),
        p95_ms=middle("p95_ms"),
        p99_ms=middle("p99_ms"),
        cpu_s_per_image=middle("cpu_s_per_image"),
        peak_mb=max(peaks) if peaks else None,
    )


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004 - no 1e+03


def _cells(row: Row) -> list[str]:
    numbers = ((row.p50_ms, ".0f"), (row.p95_ms, ".0f"), (row.p99_ms, ".0f"), (row.cpu_s_per_image, ".3f"))
    return [
        row.name,
        "-" if row.clients is None else str(row.clients),
        f"{row.throughput:.2f}",
        *("-" if value is None else format(value, form) for value, form in numbers),
        "-" if row.peak_mb is None else f"{row.peak_mb:.0f}",
    ]


def _plot(rows: Sequence[Row], file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 0.42 * len(rows) + 1.2), layout="constrained")
    names = [row.name if row.clients is None else f"{row.name}, {row.clients} clients" for row in rows]
    colors = {name: f"C{index}" for index, name in enumerate(dict.fromkeys(row.name for row in rows))}
    bars = axes.barh(names, [row.throughput for row in rows], color=[colors[row.name] for row in rows])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("images per second, more is better")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
