"""Measures what the kernel's policy for tritonserver's threads does to requests that come at once, and to a load."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from bench.binary_requests import INFER_PATH, binary_request
from bench.load import run_load
from bench.report import Figure, Report
from bench.senders import Request, Senders
from bench.setting import Setting
from bench.small_network import export_small, small_images
from inference_server.supervision.model_processes import descendants
from inference_server.triton.process import running_server

POLICIES = {"as our commands start it": os.SCHED_BATCH, "by the usual policy": os.SCHED_OTHER}
SIZES = (2, 6)
LEAST_ROUNDS = 5
PAUSE_S = 0.02  # between bursts, so that the server is idle
WARM_UP = 3  # bursts
STALLED_MS = 300.0
CLIENTS = 8


def bench_bursts(setting: Setting, report: Report, *, quick: bool) -> None:
    """Change the policy of one server's threads in turn; send bursts of requests, and then the load of some clients."""
    requests = [binary_request([file.read_bytes()]) for file in small_images(setting)]
    bodies, headers = zip(*requests, strict=True)
    measured: dict[tuple[str, str], list[float]] = defaultdict(list)  # by name and unit
    with (
        running_server(export_small(setting), log=setting.folder / "bursts.log") as server,
        Senders(server.url, max(SIZES)) as senders,
    ):
        url = server.url + INFER_PATH
        for _ in range(1 if quick else max(setting.rounds, LEAST_ROUNDS)):
            for policy, number in POLICIES.items():
                _set_policy(server.process.pid, number)
                for size in SIZES:
                    times_ms = np.array(_send_bursts(senders, requests[:size], setting.seconds / len(SIZES)))
                    case = f"{size} requests at once, {policy}"
                    measured[f"{case}: until all are answered, p50", "ms"].append(float(np.percentile(times_ms, 50)))
                    measured[f"{case}: until all are answered, p99", "ms"].append(float(np.percentile(times_ms, 99)))
                    measured[f"{case}: longer than {STALLED_MS:g} ms", "%"].append(
                        100 * float(np.mean(times_ms > STALLED_MS))
                    )
                load = run_load(url, bodies, clients=CLIENTS, duration_s=setting.seconds, headers=headers)
                measured[f"{CLIENTS} clients, {policy}", "images/s"].append(load.throughput)
    report.figures += [Figure(name=name, values=values, unit=unit) for (name, unit), values in measured.items()]


def _send_bursts(senders: Senders, requests: Sequence[tuple[bytes, Mapping[str, str]]], seconds: float) -> list[float]:
    """Send all requests at once, for some seconds; return how many milliseconds each time took."""
    times_ms: list[float] = []
    answered = threading.Semaphore(0)
    began_s = time.monotonic()
    while len(times_ms) < WARM_UP + 1 or time.monotonic() < began_s + seconds:
        started_s = time.monotonic()
        for number in range(len(requests)):
            senders.send(Request(partial(requests.__getitem__, number), answered.release))
        for _ in requests:
            answered.acquire()
        times_ms.append(1000 * (time.monotonic() - started_s))
        time.sleep(PAUSE_S)
    return times_ms[WARM_UP:]


def _set_policy(server: int, policy: int) -> None:
    for process in (server, *descendants(server)):
        for thread in Path(f"/proc/{process}/task").iterdir():
            os.sched_setscheduler(int(thread.name), policy, os.sched_param(0))
