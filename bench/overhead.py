"""Measures the time that serving adds to decoding and a small network, and the start time of the server."""

from __future__ import annotations

import io
import subprocess
import sys
import time

from PIL import Image

from bench.ceiling import measure_apart
from bench.input_data import encode_input
from bench.perf_analyzer import WINDOWS, fetch_perf_analyzer, measure
from bench.report import Figure, Report
from bench.resources import write_resources
from bench.serving import graph_of, model_statistics
from bench.setting import Setting
from inference_server.triton.process import RunningServer, running_server

SMALL_SIZE = 64
SMALL_IMAGE = (256, 256)
MODELS = ("preprocess", "classifier", "cluster_head")
PHASES = ("queue", "compute_input", "compute_infer", "compute_output")
CONCURRENCIES = (1, 8)


def bench_overhead(setting: Setting, report: Report, *, quick: bool) -> None:
    """Measure at S = 64 with images of 256 x 256, and split an image's time by Triton's own statistics."""
    images = setting.folder / "small-images"
    images.mkdir(exist_ok=True)
    for file in setting.queries:
        buffer = io.BytesIO()
        Image.open(file).resize(SMALL_IMAGE).save(buffer, "JPEG", quality=90)
        (images / file.name).write_bytes(buffer.getvalue())
    files = sorted(images.glob("*.jpg"))
    resources = write_resources(setting.folder / "small-resources", files, SMALL_SIZE)
    repository = setting.export("small", "--image_size", str(SMALL_SIZE), resources=resources)
    input_data = setting.folder / "small.json"
    input_data.write_text(encode_input([file.read_bytes() for file in files]))
    perf_analyzer = fetch_perf_analyzer(setting.folder.parent / "perf_analyzer")
    values: dict[int, list[float]] = {clients: [] for clients in CONCURRENCIES}
    notes: dict[int, list[str]] = {clients: [] for clients in CONCURRENCIES}
    with running_server(repository, log=setting.folder / "small.log") as server:
        for _ in range(max(3, setting.rounds)):
            ceiling = measure_apart(graph_of(repository), images, SMALL_SIZE, 5 if quick else 10)
            for clients, inside_ms in zip(CONCURRENCIES, (ceiling.latency_ms, 1000 / ceiling.best), strict=True):
                before = _statistics_ms(server)
                load = measure(
                    perf_analyzer,
                    "ensemble",
                    input_data,
                    server.url.removeprefix("http://"),
                    concurrency=clients,
                    window_s=setting.seconds / WINDOWS,
                )
                image_ms = load.p50_ms if clients == 1 else 1000 / load.throughput
                values[clients].append(image_ms - inside_ms)
                notes[clients] = _explain(before, _statistics_ms(server), image_ms, inside_ms)
    report.figures += [
        Figure(name="overhead at S = 64, 1 client", values=values[1], unit="ms", at_most=3, notes=notes[1]),
        Figure(name="overhead at S = 64, 8 clients", values=values[8], unit="ms an image", notes=notes[8]),
    ]


def bench_start(setting: Setting, report: Report, *, quick: bool) -> None:
    """Measure how long tritonserver takes to be ready, with the full network, and the client to be imported."""
    repository = setting.export("fp32")
    times = []
    for _ in range(2 if quick else 3):
        began_s = time.monotonic()
        with running_server(repository, log=setting.folder / "start.log"):
            times.append(time.monotonic() - began_s)
    imports = [_run_python_s("import inference_client") - _run_python_s("pass") for _ in range(3 if quick else 7)]
    report.figures += [
        Figure(name="tritonserver, start to ready", values=times, unit="s", at_most=10),
        Figure(name="import inference_client", values=imports, unit="s", at_most=0.5),
    ]


def _run_python_s(code: str) -> float:
    """Return the seconds that a fresh interpreter takes to run code."""
    began_s = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - began_s


def _statistics_ms(server: RunningServer) -> dict[str, dict[str, float]]:
    statistics_ms = {}
    for model in MODELS:
        statistics = model_statistics(server, model)["inference_stats"]
        statistics_ms[model] = {phase: statistics[phase]["ns"] / 1e6 for phase in PHASES}
        statistics_ms[model]["requests"] = statistics["success"]["count"]
    return statistics_ms


def _explain(
    before: dict[str, dict[str, float]], after: dict[str, dict[str, float]], image_ms: float, inside_ms: float
) -> list[str]:
    lines = [f"{image_ms:.2f} ms an image, of which {inside_ms:.2f} in process"]
    for model in MODELS:
        requests = after[model]["requests"] - before[model]["requests"]
        phases = {phase: (after[model][phase] - before[model][phase]) / requests for phase in PHASES}
        lines.append(f"{model}, ms a request: " + ", ".join(f"{phase} {ms:.2f}" for phase, ms in phases.items()))
    return lines
