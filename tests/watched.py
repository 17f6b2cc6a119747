"""``inference-server`` as a user starts it, which supervises its tritonserver."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from inference_server.addresses import LOOPBACK
from inference_server.errors import ServerError
from inference_server.supervision.checking import check
from inference_server.supervision.model_processes import STUB
from inference_server.triton.process import free_ports

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 60.0
SYNC = "inference_server.base_set.command"


@dataclass(frozen=True, kw_only=True)
class WatchedServer:
    """A running ``inference-server``."""

    port: int
    metrics_port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def metrics_url(self) -> str:
        return f"http://{LOOPBACK}:{self.metrics_port}/metrics"

    def tritonserver(self) -> psutil.Process:
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if child.name() == "tritonserver")

    def model_process(self, model: str) -> psutil.Process:
        """A living process of a model; each instance has one."""
        processes = self.model_processes(model)
        if not processes:
            raise LookupError(f"no process of {model}")
        return processes[0]

    def model_processes(self, model: str) -> list[psutil.Process]:
        """The living processes of a model."""
        processes = []
        for child in self.tritonserver().children():
            with contextlib.suppress(psutil.Error):
                arguments = child.cmdline()
                if (
                    arguments
                    and arguments[0].endswith(STUB)
                    and any(f"/{model}/" in argument for argument in arguments)
                ):
                    processes.append(child)
        return processes

    def syncs(self) -> list[psutil.Process]:
        """The processes that make the base set follow the folder; at most one."""
        syncs = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                if SYNC in child.cmdline():
                    syncs.append(child)
        return syncs

    def is_serving(self) -> bool:
        try:
            check(LOOPBACK, self.port)
        except ServerError:
            return False
        return True

    def wait_until_serving(self, timeout_s: float = START_TIMEOUT_S) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not self.is_serving():
            assert time.monotonic() < deadline_s, f"not back within {timeout_s} s:\n{self.said()[-3000:]}"
            time.sleep(0.1)

    def wait_until_said(self, text: str, timeout_s: float = START_TIMEOUT_S) -> None:
        deadline_s = time.monotonic() + timeout_s
        while text not in self.said():
            assert time.monotonic() < deadline_s, f"has not said {text!r}:\n{self.said()[-3000:]}"
            time.sleep(0.1)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def watched_server(*arguments: object, log: Path) -> Iterator[WatchedServer]:
    """Run the command on free ports until the context ends. The server answers from the yield on."""
    port, metrics_port = free_ports(2)
    command = [sys.executable, "-m", "inference_server", "--port", str(port), "--metrics_port", str(metrics_port),
               *map(str, arguments)]  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    server = WatchedServer(port=port, metrics_port=metrics_port, process=process, log=log)
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/v2/health/ready", timeout=2):
                break
            assert process.poll() is None, server.said()
            assert time.monotonic() < deadline_s, server.said()
            time.sleep(0.1)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
