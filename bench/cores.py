"""Measures how throughput grows with the server's cores."""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Iterator

from bench.load import run_load
from bench.report import Figure, Report
from bench.serving import infer_request
from bench.setting import Setting
from inference_server.triton.process import running_server

CLIENTS = 8


def bench_cores(setting: Setting, report: Report, *, quick: bool) -> None:
    """Serve in turn with 1, 2, 4, ... of this machine's cores, each time with an export for that number of cores."""
    cores = sorted(os.sched_getaffinity(0))
    counts = [2**power for power in range(len(cores).bit_length())]
    texts = [base64.b64encode(file.read_bytes()).decode("ascii") for file in setting.queries]
    bodies = [json.dumps(infer_request(text)).encode() for text in texts]
    throughputs: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(1 if quick else setting.rounds):
        for count in counts:
            repository = setting.export(f"{count}-cores", "--cpus", str(count))
            with (
                _confined_to(cores[:count]),
                running_server(repository, log=setting.folder / "cores.log") as server,
            ):
                os.sched_setaffinity(0, cores)  # the clients may use all cores
                url = f"{server.url}/v2/models/ensemble/infer"
                run_load(url, bodies, clients=1, duration_s=0.1)
                load = run_load(url, bodies, clients=CLIENTS, duration_s=setting.seconds)
                throughputs[count].append(load.throughput)
    report.figures += [
        Figure(name=f"ensemble, {CLIENTS} clients, cores: {count}", values=values, unit="images/s")
        for count, values in throughputs.items()
    ]


@contextlib.contextmanager
def _confined_to(cores: list[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
