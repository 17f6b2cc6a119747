"""Measures the client's own share of a request's time, with a stand-in for the server that answers at once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass

from bench.client_ways import ASYNC_CLASSIFY, ASYNC_TRITONCLIENT, CLASSIFY, TRITONCLIENT, Send, open_ways
from bench.report import Figure, Report
from bench.setting import Setting
from bench.small_network import small_images
from bench.stand_in import running_stand_in

REQUESTS = {1: 200, 32: 40}  # of each way in each round, by images in a request
QUICK_SHARE = 4
LEAST_ROUNDS = 5
BELOW = {CLASSIFY: TRITONCLIENT, ASYNC_CLASSIFY: ASYNC_TRITONCLIENT}
_WARM_UP_REQUESTS = 5


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a request costs its client.

    Attributes:
        wall_us: Median time from the call to its result, in microseconds.
        cpu_us: CPU time of the client's process, in microseconds.
    """

    wall_us: float
    cpu_us: float


def bench_client(setting: Setting, report: Report, *, quick: bool) -> None:
    """Send JPEGs of 256 x 256 in turn through our clients, those below them, and the bare socket."""
    files = small_images(setting)
    for images, requests in REQUESTS.items():
        paths = [files[number % len(files)] for number in range(images)]
        with running_stand_in() as url, ExitStack() as stack:
            ways = open_ways(url, paths, stack)
            costs: dict[str, list[Cost]] = {name: [] for name in ways}
            for send in ways.values():
                send(_WARM_UP_REQUESTS)
            for _ in range(max(LEAST_ROUNDS, setting.rounds)):
                for name, send in ways.items():
                    costs[name].append(_measure(send, requests // (QUICK_SHARE if quick else 1)))
        report.figures += _figures(f"{images} image{'s' if images > 1 else ''}", costs)


def _measure(send: Send, requests: int) -> Cost:
    began_cpu_s = time.process_time()
    times_s = send(requests)
    cpu_s = time.process_time() - began_cpu_s
    return Cost(wall_us=statistics.median(times_s) * 1e6, cpu_us=cpu_s / requests * 1e6)


def _figures(request: str, costs: Mapping[str, Sequence[Cost]]) -> list[Figure]:
    over = {
        f"{ours} - {below}": [
            Cost(wall_us=one.wall_us - other.wall_us, cpu_us=one.cpu_us - other.cpu_us)
            for one, other in zip(costs[ours], costs[below], strict=True)
        ]
        for ours, below in BELOW.items()
    }
    figures = []
    for name, measured in {**costs, **over}.items():
        wall_us, cpu_us = zip(*map(astuple, measured), strict=True)
        figures += [
            Figure(name=f"{name}, {request}, wall", values=wall_us, unit="us"),
            Figure(name=f"{name}, {request}, CPU", values=cpu_us, unit="us"),
        ]
    return figures
