"""Processes that are killed or stopped under load."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from inference_server.supervision.shared_memory import FOLDER
from tests.chaos.load import Expected, Load
from tests.chaos.tally import Tally
from tests.watched import WatchedServer

MODELS = ("preprocess", "classifier", "cluster_head")
SETTLE_S = 1.0
SERVER_BACK_S = 15.0
MODEL_BACK_S = 5.0
DYING_S = 10.0
NOTICED_S = {signal.SIGKILL: 1.0, signal.SIGSTOP: 3.0}


def crash_models(
    server: WatchedServer,
    expected: Expected,
    how: signal.Signals,
    models: Sequence[str] = MODELS,
    rounds: int = 1,
    *,
    timed: bool = True,
) -> Tally:
    """Kill or stop each model's process under load.

    Args:
        server: The server.
        expected: Right answer for each image.
        how: The signal.
        models: Names of the models.
        rounds: How many times each model's process gets the signal.
        timed: Whether to assert the time of a repair, on an otherwise idle machine.
    """
    tally = Tally(what=f"{how.name} to a process of {', '.join(models)}")
    back_s = []
    with Load(server.url, [expected], tally) as load:
        for _ in range(rounds):
            for model in models:
                began_s = time.monotonic()
                process = server.model_process(model)
                descendants = process.children(recursive=True)
                process.send_signal(how)
                tally.times += 1
                _wait_for_more(server, began_s)
                back_s.append(time.monotonic() - began_s)
                assert not _outlive(descendants), f"{model}'s process is dead, and its children are not"
                time.sleep(SETTLE_S)
    repairs = [float(text) for text in re.findall(r"replaced in ([\d.]+) s", server.said())]
    tally.notes += [f"back after {max(back_s):.1f} s at most; replaced in {max(repairs):.1f} s at most"]
    assert not timed or max(repairs) <= MODEL_BACK_S, server.said()[-2000:]
    tally.notes += load.failures[:3]
    return tally


def crash_server(
    server: WatchedServer, expected: Expected, how: signal.Signals, rounds: int = 1, *, timed: bool = True
) -> Tally:
    """Kill or stop tritonserver itself under load. Its shared memory must be freed."""
    tally = Tally(what=f"{how.name} to tritonserver")
    back_s = []
    with Load(server.url, [expected], tally) as load:
        for _ in range(rounds):
            began_s = time.monotonic()
            killed = server.tritonserver()
            prefix = shared_memory_prefix(killed)
            regions = _regions(prefix)
            assert regions
            descendants = killed.children(recursive=True)
            killed.send_signal(how)
            tally.times += 1
            _wait_for_more(server, began_s)
            back_s.append(time.monotonic() - began_s)
            assert not regions & _regions(prefix)
            assert not _outlive(descendants), "tritonserver is dead, and its models' processes are not"
            time.sleep(SETTLE_S)
    assert not timed or max(back_s) <= SERVER_BACK_S
    tally.notes += [f"back after {max(back_s):.1f} s at most", *load.failures[:3]]
    return tally


def _wait_for_more(server: WatchedServer, began_s: float) -> None:
    """Wait until the service has noticed and is back."""
    while server.is_serving() and time.monotonic() - began_s < NOTICED_S[signal.SIGSTOP] + 1:
        time.sleep(0.05)
    server.wait_until_serving()


def _outlive(processes: Sequence[psutil.Process]) -> bool:
    """Whether some processes are alive after a while; on a busy machine, a process takes a second to die."""
    ends_s = time.monotonic() + DYING_S
    while alive := [process for process in processes if _is_alive(process)]:
        if time.monotonic() > ends_s:
            return True
        time.sleep(0.05)
    return bool(alive)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def shared_memory_prefix(tritonserver: psutil.Process) -> str:
    arguments = " ".join(tritonserver.cmdline())
    prefix = re.search(r"shm-region-prefix-name=(\w+)", arguments)
    assert prefix is not None
    return prefix[1]


def _regions(prefix: str) -> set[Path]:
    return {path for path in FOLDER.glob(f"{prefix}*") if not path.name.endswith("_lock")}
