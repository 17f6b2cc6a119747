"""Reduced decoding of a large photograph against the exact one."""

from __future__ import annotations

import time
from collections.abc import Callable

from inference_export.preprocessing import decode_pixels

from .images import make_large_image
from .in_process import ThreadDecoder
from .report import Figure, Report
from .setting import IMAGE_SIZE, Setting

REPETITIONS = 5


def bench_decoding(setting: Setting, report: Report, *, quick: bool) -> None:
    """Measure ``decode_pixels`` on a JPEG of 12 megapixels."""
    data = make_large_image()
    ThreadDecoder(IMAGE_SIZE)  # has Pillow keep its memory, as the server does
    ratios = []
    for _ in range(3 if quick else max(3, setting.rounds)):
        exact_s = shortest_s(lambda: decode_pixels(data, IMAGE_SIZE), REPETITIONS)
        reduced_s = shortest_s(lambda: decode_pixels(data, IMAGE_SIZE, reduced=True), REPETITIONS)
        ratios.append(exact_s / reduced_s)
    report.figures.append(
        Figure(
            name="12-megapixel JPEG, exact / reduced",
            values=ratios,
            at_least=2,
            notes=[f"{len(data) / 1e6:.1f} MB; {exact_s * 1e3:.0f} ms exact, {reduced_s * 1e3:.0f} ms reduced"],
        )
    )


def shortest_s(work: Callable[[], object], repetitions: int) -> float:
    """Time some work several times; the shortest, in seconds, is the one that was disturbed least."""
    times = []
    for _ in range(repetitions):
        began_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - began_s)
    return min(times)
