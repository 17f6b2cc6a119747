"""Compares decoding in separate processes with decoding in this process, and reduced decoding with exact decoding."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from bench.images import make_large_image
from bench.in_process import ThreadDecoder
from bench.report import Figure, Report
from bench.setting import IMAGE_SIZE, Setting
from inference_export.base_set.decoding import decode_pixels, open_decoder

REPETITIONS = 5
BATCH = 32
SIZES = (IMAGE_SIZE, 64)


def bench_decoding(setting: Setting, report: Report, *, quick: bool) -> None:
    """Measure the decoders of ``preprocess`` on ordinary photographs, and ``decode_pixels`` on 12 megapixels."""
    rounds = 3 if quick else max(3, setting.rounds)
    for size in SIZES:
        _bench_processes([file.read_bytes() for file in setting.queries], size, report, rounds)
    _bench_reduced(report, rounds)


def _bench_processes(files: Sequence[bytes], size: int, report: Report, rounds: int) -> None:
    in_process = ThreadDecoder(size)
    batch = [files[row % len(files)] for row in range(BATCH)]
    added_ms, ratios = [], []
    with open_decoder(size, "exact") as decoders:
        decoders.decode(batch)
        for _ in range(rounds):
            apart_s, here_s = (
                shortest_s(partial(decode, batch[:1]), 4 * REPETITIONS)
                for decode in (decoders.decode, in_process.decode)
            )
            added_ms.append((apart_s - here_s) * 1e3)
            apart_s, here_s = (
                shortest_s(partial(decode, batch), REPETITIONS) for decode in (decoders.decode, in_process.decode)
            )
            ratios.append(here_s / apart_s)
    report.figures += [
        Figure(
            name=f"one photograph, S = {size}, decoded in a process of its own",
            values=added_ms,
            unit="ms more",
            at_most=1,
        ),
        Figure(name=f"{BATCH} photographs, S = {size}, in processes / in this one", values=ratios, at_least=0.98),
    ]


def _bench_reduced(report: Report, rounds: int) -> None:
    data = make_large_image()
    ThreadDecoder(IMAGE_SIZE)  # makes Pillow keep its memory, as the server's decoders do
    ratios = []
    for _ in range(rounds):
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
    """Run some work several times and return the shortest time, the least disturbed one, in seconds."""
    times = []
    for _ in range(repetitions):
        began_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - began_s)
    return min(times)
