"""Compares the served ensemble with this machine's ceiling and with servers that a user might choose instead."""

from __future__ import annotations

import base64
import json
import signal
import time
import urllib.request
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from bench.binary_requests import INFER_PATH, binary_request
from bench.ceiling import BATCH_SIZES, Ceiling, measure_apart
from bench.errors import BenchError
from bench.input_data import encode_input
from bench.load import JSON_HEADERS, Load, run_load
from bench.perf_analyzer import WINDOWS, fetch_perf_analyzer, measure
from bench.processes import Usage, awake, running_baseline, send_signal
from bench.report import Figure, Report, Row, merge
from bench.setting import IMAGE_SIZE, Setting
from inference_client import Classify
from inference_export.repository.configs import Version
from inference_export.repository.versions import exported_version
from inference_server.triton.process import RunningServer, running_server

CONCURRENCIES = (1, 4, 8, 16)
QUICK_CONCURRENCIES = (1, 8)
BASELINE_CLIENTS = 4
OURS, OURS_INT8, CLASSIFY, CEILING = "this server", "this server, int8", "this server, Classify", "ceiling"
OURS_CLIENTS, FLASK, LITSERVE = "this server, own clients", "Flask + PyTorch", "LitServe + PyTorch"


class Contest:
    """All contenders, running side by side and measured in turn.

    Args:
        setting: The setting of the benchmarks.
        stack: Stops the servers when it closes.

    Attributes:
        rows: The rows of all rounds, by name and number of clients.
        ceilings: The ceiling of each round.
    """

    def __init__(self, setting: Setting, stack: ExitStack) -> None:
        self._setting = setting
        self._perf_analyzer = fetch_perf_analyzer(setting.folder.parent / "perf_analyzer")
        self._input = setting.folder / "ensemble.json"
        files = [file.read_bytes() for file in setting.queries]
        self._input.write_text(encode_input(files))
        texts = [base64.b64encode(file).decode("ascii") for file in files]
        self._bodies = [json.dumps([text]).encode() for text in texts]
        requests = [binary_request([file]) for file in files]
        self._triton_bodies, self._triton_headers = zip(*requests, strict=True)
        self.rows: dict[tuple[str, int | None], list[Row]] = defaultdict(list)
        self.ceilings: list[Ceiling] = []
        self._graph = graph_of(setting.export("fp32"))
        # In 8 bits, random weights lose more than trained weights; only the speed matters here.
        int8 = setting.export("int8", "--precision", "int8", "--accept_loss")
        self._ours, self._int8 = (
            stack.enter_context(running_server(repository, log=setting.folder / f"{repository.name}.log"))
            for repository in (setting.repository("fp32"), int8)
        )
        arguments = ["--resources", str(setting.resources), "--image_size", str(IMAGE_SIZE)]
        self._baselines = {
            name: stack.enter_context(running_baseline(module, arguments, setting.folder / f"{module}.log"))
            for name, module in ((FLASK, "flask_server"), (LITSERVE, "litserve_server"))
        }
        for _, pid in self._baselines.values():
            send_signal(pid, signal.SIGSTOP)

    def run_round(self, concurrencies: tuple[int, ...]) -> None:
        """Measure every contender once."""
        ceiling = measure_apart(self._graph, self._setting.images, IMAGE_SIZE, 2 * self._setting.seconds)
        self.ceilings.append(ceiling)
        self._add(
            Row(
                name=CEILING,
                clients=None,
                throughput=ceiling.best,
                p50_ms=ceiling.latency_ms,
                cpu_s_per_image=ceiling.cpu_s_per_image,
                peak_mb=ceiling.peak_mb,
            )
        )
        for clients in concurrencies:
            self._add_server(OURS, self._ours, clients)
        self._add_server(OURS_INT8, self._int8, 8)
        self._add_classify()
        ours = f"{self._ours.url}{INFER_PATH}"
        self._add_clients(OURS_CLIENTS, ours, self._ours.process.pid, self._triton_bodies, self._triton_headers)
        for name, (url, pid) in self._baselines.items():
            with awake(pid):
                path = "/predict" if name == LITSERVE else "/"
                self._add_clients(name, f"{url}{path}", pid, self._bodies, [JSON_HEADERS])

    def _add(self, row: Row) -> None:
        self.rows[row.name, row.clients].append(row)
        click.echo(f"  {row.name}, {row.clients or 'own'} clients: {row.throughput:.2f} images/s", err=True)

    def _add_load(self, name: str, clients: int, load: Load, usage: Usage, images: int) -> None:
        self._add(
            Row(
                name=name,
                clients=clients,
                throughput=load.throughput,
                p50_ms=load.p50_ms,
                p95_ms=load.p95_ms,
                p99_ms=load.p99_ms,
                cpu_s_per_image=usage.cpu_s / images,
                peak_mb=usage.peak_mb,
            )
        )

    def _add_server(self, name: str, server: RunningServer, clients: int) -> None:
        before = count_images(server)
        with Usage(server.process.pid) as usage:
            load = measure(
                self._perf_analyzer,
                "ensemble",
                self._input,
                server.url.removeprefix("http://"),
                concurrency=clients,
                # Answers arrive in batches, so with more clients the edges of a window matter more.
                window_s=self._setting.seconds * (1 if clients < 8 else 2) / WINDOWS,  # noqa: PLR2004
            )
        self._add_load(name, clients, load, usage, count_images(server) - before)

    def _add_clients(
        self, name: str, url: str, pid: int, bodies: Sequence[bytes], headers: Sequence[Mapping[str, str]]
    ) -> None:
        run_load(url, bodies, clients=1, duration_s=0.1, headers=headers)
        with Usage(pid) as usage:
            load = run_load(
                url, bodies, clients=BASELINE_CLIENTS, duration_s=2 * self._setting.seconds, headers=headers
            )
        self._add_load(name, BASELINE_CLIENTS, load, usage, load.images)

    def _add_classify(self) -> None:
        files = self._setting.queries
        paths = [files[number % len(files)] for number in range(self._setting.classify_images)]
        with Classify(self._ours.url) as classify, Usage(self._ours.process.pid) as usage:
            began_s = time.monotonic()
            _, status = classify(paths)
            elapsed_s = time.monotonic() - began_s
        if status != 200:  # noqa: PLR2004
            raise BenchError(f"Classify answered {status} on {len(paths)} images.")
        self._add(
            Row(
                name=CLASSIFY,
                clients=None,
                throughput=len(paths) / elapsed_s,
                cpu_s_per_image=usage.cpu_s / len(paths),
                peak_mb=usage.peak_mb,
            )
        )


def bench_serving(setting: Setting, report: Report, *, quick: bool) -> None:
    """Measure the contenders, and the ratios between them within each round."""
    with ExitStack() as stack:
        contest = Contest(setting, stack)
        for number in range(1, setting.rounds + 1):
            click.echo(f"serving, round {number} of {setting.rounds}", err=True)
            contest.run_round(QUICK_CONCURRENCIES if quick else CONCURRENCIES)
    report.rows += [merge(rows) for rows in contest.rows.values()]
    report.figures += _figures(contest, setting)


def _figures(contest: Contest, setting: Setting) -> list[Figure]:
    def ratios(over: tuple[str, int | None], under: tuple[str, int | None]) -> list[float]:
        pairs = zip(contest.rows[over], contest.rows[under], strict=True)
        return [one.throughput / other.throughput for one, other in pairs]

    latencies = zip(contest.rows[OURS, 1], contest.ceilings, strict=True)
    batches = {size: [round(ceiling.throughput[size], 2) for ceiling in contest.ceilings] for size in BATCH_SIZES}
    return [
        Figure(
            name="ensemble, 8 clients / ceiling",
            values=ratios((OURS, 8), (CEILING, None)),
            at_least=0.95,
            notes=[f"ceiling by batch size, images/s in each round: {batches}"],
        ),
        Figure(
            name="ensemble p50, 1 client / in process",
            values=[row.p50_ms / ceiling.latency_ms for row, ceiling in latencies if row.p50_ms],
            at_most=1.10,
        ),
        Figure(
            name="ensemble, 4 clients / Flask + PyTorch",
            values=ratios((OURS_CLIENTS, BASELINE_CLIENTS), (FLASK, BASELINE_CLIENTS)),
            at_least=1.6,
        ),
        Figure(
            name="ensemble, 4 clients / LitServe + PyTorch",
            values=ratios((OURS_CLIENTS, BASELINE_CLIENTS), (LITSERVE, BASELINE_CLIENTS)),
        ),
        Figure(name="int8 / float32, 8 clients", values=ratios((OURS_INT8, 8), (OURS, 8)), at_least=1.5),
        Figure(
            name=f"Classify on {setting.classify_images} files / perf_analyzer, 8 clients",
            values=ratios((CLASSIFY, None), (OURS, 8)),
            at_least=0.95,
        ),
    ]


def count_images(server: RunningServer) -> int:
    """Return how many images a server's ensemble has answered."""
    return int(model_statistics(server, "ensemble")["inference_count"])


def model_statistics(server: RunningServer, model: str) -> Any:
    """Read Triton's statistics of a model, of the newest version that is loaded."""
    with urllib.request.urlopen(f"{server.url}/v2/models/{model}/stats", timeout=10) as answer:  # noqa: S310
        return max(json.load(answer)["model_stats"], key=lambda statistics: int(statistics["version"]))


def infer_request(text: str) -> dict[str, Any]:
    """Build the JSON request for one image in base64."""
    image = {"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
    return {"inputs": [image], "outputs": [{"name": "LABEL"}, {"name": "PROBABILITY"}, {"name": "ERROR"}]}


def graph_of(repository: Path) -> Path:
    """Return the path of the ONNX graph that a repository serves."""
    return repository / "classifier" / served_version(repository).folder("classifier") / "model.onnx"


def served_version(repository: Path) -> Version:
    """Return the version that a repository serves.

    Raises:
        BenchError: It holds none.
    """
    version = exported_version(repository)
    if version is None:
        raise BenchError(f"{repository} holds no export.")
    return version
