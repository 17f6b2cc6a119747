"""Measures at S = 64 what serving adds to decoding and the network, by model and step."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from bench.input_data import encode_input
from bench.load import Load
from bench.overhead.in_process import InProcess, measure_in_process
from bench.overhead.steps import BESIDE, REST, STEPS, TimedRepository
from bench.perf_analyzer import WINDOWS, fetch_perf_analyzer, measure
from bench.report import Figure, Report
from bench.serving import model_statistics
from bench.setting import Setting
from bench.small_network import SMALL_SIDE, export_small, small_images
from inference_client.command_line.formatting import table_lines
from inference_server.triton.process import RunningServer, running_server

MODES = ("clustering", "classification")
ALONE, REPETITIONS = "alone", 50  # a server in clustering mode whose models are driven one by one
PHASES = ("queue", "compute_input", "compute_infer", "compute_output")
FEWEST_ROUNDS = 5
MAX_BATCH = 32
EMBEDDING_SIZE = 512
NETWORK_CLASSES = 2
LONGEST_IMAGE_S = 0.015


class Case(NamedTuple):
    """A load: clients that each keep one request of some images in flight."""

    mode: str
    clients: int
    images: int

    @property
    def batch(self) -> int:
        """The largest batch that this load can make."""
        return min(MAX_BATCH, self.clients * self.images)

    def __str__(self) -> str:
        plural = "s" if self.clients > 1 else ""
        return (
            f"{self.mode}, {self.clients} client{plural}, {self.images} image{'s' if self.images > 1 else ''} a request"
        )


CASES = [Case(mode, clients, images) for mode in MODES for images in (1, MAX_BATCH) for clients in (1, 8)]
ONE, EIGHT = Case("clustering", 1, 1), Case("clustering", 8, 1)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Something that can be driven: a server, and input for its models."""

    server: RunningServer
    perf_analyzer: Path
    folder: Path

    def drive(self, case: Case, seconds: float, model: str = "ensemble") -> Load:
        """Send requests for some seconds, or longer if each of the windows would see too few answers."""
        seconds = max(seconds, WINDOWS * LONGEST_IMAGE_S * case.clients * case.images)
        return measure(
            self.perf_analyzer,
            model,
            self.folder / f"small-{'head' if model == 'cluster_head' else 'images'}.json",
            self.server.url.removeprefix("http://"),
            concurrency=case.clients,
            window_s=seconds / WINDOWS,
            batch=case.images,
        )


class Profile(NamedTuple):
    """Where the time of a request went, in microseconds, by model and step or phase of Triton's."""

    steps: dict[str, Counter[str]]
    phases: dict[str, Counter[str]]
    request_us: float


class Bench:
    """Servers of both modes, plain and with timed steps, and everything that was measured on them."""

    def __init__(self, setting: Setting, stack: contextlib.ExitStack, seconds: float) -> None:
        self._seconds = seconds
        images = small_images(setting)
        self._images = images[0].parent
        files = [file.read_bytes() for file in images]
        (setting.folder / "small-images.json").write_text(encode_input(files))
        (setting.folder / "small-head.json").write_text(_head_input())
        perf_analyzer = fetch_perf_analyzer(setting.folder.parent / "perf_analyzer")
        self.repositories = {mode: export_small(setting, mode=mode) for mode in MODES}
        self._timed = {
            mode: TimedRepository(repository, setting.folder / f"timed-{mode}")
            for mode, repository in self.repositories.items()
        }

        def serve(repository: Path, name: str, arguments: list[str]) -> Target:
            log = setting.folder / f"{name}.log"
            server = stack.enter_context(running_server(repository, log=log, arguments=arguments))
            return Target(server=server, perf_analyzer=perf_analyzer, folder=setting.folder)

        self._plain = {mode: serve(repository, f"small-{mode}", []) for mode, repository in self.repositories.items()}
        self._watched = {
            mode: serve(timed.repository, f"timed-{mode}", timed.arguments) for mode, timed in self._timed.items()
        }
        self._timed[ALONE] = TimedRepository(
            self.repositories["clustering"], setting.folder / "timed-alone", repetitions=REPETITIONS
        )
        self._watched[ALONE] = serve(self._timed[ALONE].repository, "timed-alone", self._timed[ALONE].arguments)
        self.in_process: list[InProcess] = []
        self.image_ms: dict[Case, list[float]] = defaultdict(list)
        self.profiles: dict[Case, list[Profile]] = defaultdict(list)
        self.alone: dict[str, list[Profile]] = defaultdict(list)

    def run_round(self) -> None:
        """Measure everything once."""
        batches = sorted({case.batch for case in CASES})
        self.in_process.append(
            measure_in_process(self.repositories["clustering"], self._images, SMALL_SIDE, batches, 2 * self._seconds)
        )
        for case in CASES:
            click.echo(f"  {case}", err=True)
            load = self._plain[case.mode].drive(case, self._seconds)
            is_alone = case.clients == 1
            self.image_ms[case].append(load.p50_ms / case.images if is_alone else 1000 / load.throughput)
            self.profiles[case].append(self._profile(case, "ensemble"))
        for model in ("preprocess", "cluster_head"):
            self.alone[model].append(self._profile(Case(ALONE, 1, 1), model))

    def _profile(self, case: Case, model: str) -> Profile:
        target, timed = self._watched[case.mode], self._timed[case.mode]
        models = list(STEPS) if model == "ensemble" else [model]
        before = {each: (timed.read_us(each), _phases_us(target.server, each)) for each in models}
        load = target.drive(case, self._seconds, model)
        steps, phases = {}, {}
        for each in models:
            steps_us, phases_us = timed.read_us(each), _phases_us(target.server, each)
            steps_us.subtract(before[each][0])
            phases_us.subtract(before[each][1])
            requests = phases_us.pop("requests")
            steps[each] = Counter({step: us / requests for step, us in steps_us.items()})
            phases[each] = Counter({phase: us / requests for phase, us in phases_us.items()})
        return Profile(steps, phases, load.p50_ms * 1000)


def bench_overhead(setting: Setting, report: Report, *, quick: bool) -> None:
    """Measure at S = 64 with images of 256 x 256: served, in process, and by step."""
    with contextlib.ExitStack() as stack:
        bench = Bench(setting, stack, 1 if quick else 3)
        rounds = max(FEWEST_ROUNDS, setting.rounds)
        for number in range(1, rounds + 1):
            click.echo(f"overhead, round {number} of {rounds}", err=True)
            bench.run_round()
    report.figures += list(_figures(bench))


def _figures(bench: Bench) -> Iterator[Figure]:
    def inside_ms(case: Case) -> list[float]:
        return [measured.image_ms[case.batch] for measured in bench.in_process]

    for case in CASES:
        served, inside = bench.image_ms[case], inside_ms(case)
        yield Figure(
            name=f"{case}: in process / served",
            values=[one / other for one, other in zip(inside, served, strict=True)],
            at_least=0.9 if case == EIGHT else None,
            notes=[
                f"{statistics.median(served):.2f} ms an image, in process {statistics.median(inside):.2f}",
                *_table(bench.profiles[case]),
            ],
        )
    yield Figure(
        name=f"{ONE}: beyond decoding and the network",
        values=[one - other for one, other in zip(bench.image_ms[ONE], inside_ms(ONE), strict=True)],
        unit="ms",
        at_most=3,
    )
    decode_ms = [measured.decode_ms for measured in bench.in_process]
    for model, name, inside, most in (
        ("preprocess", "our Python beyond decode_pixels", decode_ms, 0.20),
        ("cluster_head", "our Python", [0.0] * len(decode_ms), 0.30),
    ):
        own = [_own_us(profile.steps[model]) / 1000 for profile in bench.alone[model]]
        yield Figure(
            name=f"{model} alone, 1 image: {name}",
            values=[total - one for total, one in zip(own, inside, strict=True)],
            unit="ms",
            at_most=most,
            notes=_table(bench.alone[model]),
        )
        recording = [
            (profile.steps[model]["metrics"] + profile.steps[model]["log"] + profile.steps[model][BESIDE]) / 1000
            for profile in bench.alone[model]
        ]
        yield Figure(name=f"{model} alone, 1 image: metrics and log", values=recording, unit="ms", at_most=0.08)


def _own_us(steps: Counter[str]) -> float:
    return sum(us for step, us in steps.items() if step != BESIDE)


def _beside_us(steps: Counter[str]) -> float:
    return steps[BESIDE]


def _table(profiles: list[Profile]) -> list[str]:
    """Make a table of the medians: each model's steps and Triton's phases, in microseconds a request."""
    steps = [*sorted({step for model in profiles[0].steps for step in STEPS[model]} - {REST}), REST]
    lines = [["", *steps, "our Python", "beside", "Triton around it", "queue", "in and out"]]
    for model in profiles[0].steps:

        def middle(values: list[float]) -> float:
            return statistics.median(values)

        own, beside = (middle([of(profile.steps[model]) for profile in profiles]) for of in (_own_us, _beside_us))
        phases = {phase: middle([profile.phases[model][phase] for profile in profiles]) for phase in PHASES}
        cells = [middle([profile.steps[model][step] for profile in profiles]) for step in steps]
        cells += [
            own,
            beside,
            phases["compute_infer"] - own,
            phases["queue"],
            phases["compute_input"] + phases["compute_output"],
        ]
        lines.append([model, *(f"{cell:.0f}" if cell else "-" for cell in cells)])
    left = [
        profile.request_us - sum(sum(phases.values()) for phases in profile.phases.values()) for profile in profiles
    ]
    return [
        "microseconds a request",
        *table_lines(lines),
        f"left over: HTTP, ensemble and client, {statistics.median(left):.0f}",
    ]


def _phases_us(server: RunningServer, model: str) -> Counter[str]:
    statistics_ = model_statistics(server, model)
    phases: Counter[str] = Counter(requests=statistics_["inference_stats"]["success"]["count"])
    for phase in PHASES:
        phases[phase] = statistics_["inference_stats"][phase]["ns"] / 1000
    return phases


def _head_input() -> str:
    embeddings = np.random.default_rng(0).standard_normal((8, EMBEDDING_SIZE), dtype=np.float32)
    return json.dumps(
        {
            "data": [
                {"EMBEDDING": row.tolist(), "PROBABILITIES": [1 / NETWORK_CLASSES] * NETWORK_CLASSES, "ERROR": [""]}
                for row in embeddings
            ]
        }
    )
