"""Load at capacity for a long time, in both modes, with valid and bad images mixed: nothing may grow."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import psutil

from inference_client import Classify
from inference_server.supervision.shared_memory import FOLDER as SHARED_MEMORY
from tests.chaos.crashes import shared_memory_prefix
from tests.chaos.load import Expected, expected_answers, is_right
from tests.chaos.setting import Setting, prepare
from tests.corpus import hostile_files
from tests.watched import WatchedServer, watched_server

FOLDER = Path("build/soak")
CLIENTS = 2  # for each server
BAD_IMAGES = 2  # in each request
WARM_UP_S = 120.0
PERIOD_S = 60.0
MOST_GROWTH = 0.05


@dataclass
class _Counts:
    images: int = 0
    wrong: int = 0
    failed: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """Resident memory in MB and open files of each process of a server, and shared memory in MB."""

    memory_mb: dict[str, float]
    files: dict[str, int]
    shared_mb: float


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", type=click.FloatRange(min=1), default=20, show_default=True)
def main(minutes: float) -> None:
    """Soak a server in each mode, and print the growth of each process.

    Exit status: 0 if no answer was wrong or missing and no process grew by more than 5 %; 1 otherwise.
    """
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    click.echo("making networks of random weights, and exporting", err=True)
    setting = prepare(FOLDER.resolve())
    with contextlib.ExitStack() as stack:
        servers = {mode: stack.enter_context(_serving(setting, mode)) for mode in ("clustering", "classification")}
        kept = _soak(servers, setting, minutes * 60)
    sys.exit(not kept)


def _serving(setting: Setting, mode: str) -> contextlib.AbstractContextManager[WatchedServer]:
    base = setting.base if mode == "clustering" else setting.folder / "nothing"
    base.mkdir(exist_ok=True)
    repository = setting.export(mode, "-data", base)
    return watched_server("--model_repository", repository, log=setting.folder / f"{mode}.log")


def _soak(servers: dict[str, WatchedServer], setting: Setting, seconds: float) -> bool:
    counts = _Counts()
    done = threading.Event()
    bad = [data for _, data in hostile_files()][::7]
    threads = []
    for server in servers.values():
        expected = expected_answers(server.url, setting.images)
        for number in range(CLIENTS):
            arguments = (server.url, expected, bad[number::CLIENTS], counts, done)
            threads.append(threading.Thread(target=_ask, args=arguments))
    for thread in threads:
        thread.start()
    try:
        starts = _watch(servers, counts, seconds)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    ends = {mode: _sample(server) for mode, server in servers.items()}
    grown = max(_print_growth(mode, starts[mode], ends[mode]) for mode in servers)
    click.echo(f"{counts.images} images, {counts.wrong} wrong, {counts.failed} without an answer; grown {grown:+.1%}")
    repaired = [server for server in servers.values() if "replaced" in server.said() or "restarted" in server.said()]
    return grown <= MOST_GROWTH and not (counts.wrong or counts.failed or repaired)


def _watch(servers: dict[str, WatchedServer], counts: _Counts, seconds: float) -> dict[str, _Sample]:
    """Print the throughput of each period. Return the samples after the warm-up."""
    began_s = time.monotonic()
    starts: dict[str, _Sample] = {}
    while (elapsed_s := time.monotonic() - began_s) < seconds:
        before, period_s = counts.images, min(PERIOD_S, seconds - elapsed_s)
        time.sleep(period_s)
        minute = (time.monotonic() - began_s) / 60
        click.echo(f"minute {minute:4.1f}: {(counts.images - before) / period_s:6.1f} images/s")
        if not starts and time.monotonic() - began_s >= min(WARM_UP_S, seconds / 2):
            starts = {mode: _sample(server) for mode, server in servers.items()}
    return starts


def _ask(url: str, expected: Expected, bad: Sequence[bytes], counts: _Counts, done: threading.Event) -> None:
    images = list(expected)
    number = 0
    with Classify(url) as classify:
        while not done.is_set():
            spoilt = [bad[(number + offset) % len(bad)] for offset in range(BAD_IMAGES)]
            number += BAD_IMAGES
            results: Any
            results, status = classify([*spoilt, *images])
            with counts.lock:
                counts.images += len(images) + BAD_IMAGES
                if status not in {200, 207}:
                    counts.failed += len(images)
                    continue
                for image, entry in zip(images, results[BAD_IMAGES:], strict=True):
                    counts.wrong += entry["Label"] is None or not is_right(entry, expected[image])


def _sample(server: WatchedServer) -> _Sample:
    triton = server.tritonserver()
    processes = {"inference-server": psutil.Process(server.process.pid), "tritonserver": triton}
    for model in ("preprocess", "classifier", "cluster_head"):
        processes[model] = server.model_process(model)
    regions = SHARED_MEMORY.glob(f"{shared_memory_prefix(triton)}*")
    return _Sample(
        memory_mb={name: process.memory_info().rss / 1e6 for name, process in processes.items()},
        files={name: process.num_fds() for name, process in processes.items()},
        shared_mb=sum(region.stat().st_size for region in regions) / 1e6,
    )


def _print_growth(mode: str, start: _Sample, end: _Sample) -> float:
    """Print a row for each process. Return the largest growth, as a share."""
    click.echo(f"{mode:16} {'MB start':>9} {'MB end':>9} {'growth':>8} {'files start':>12} {'files end':>10}")
    growths = []
    for name, before in start.memory_mb.items():
        after = end.memory_mb[name]
        growths.append(after / before - 1)
        click.echo(
            f"{name:16} {before:9.1f} {after:9.1f} {growths[-1]:+8.1%} {start.files[name]:12} {end.files[name]:10}"
        )
    click.echo(f"{'/dev/shm':16} {start.shared_mb:9.1f} {end.shared_mb:9.1f}")
    return max(growths)


if __name__ == "__main__":
    main(prog_name="python -m tests.chaos.soak")
