"""Runs servers as child processes, and measures the CPU time and memory of a process and all its children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from bench.errors import BenchError
from inference_server.triton.process import free_ports, stop

START_TIMEOUT_S = 120.0
_SAMPLE_S = 0.5
_PROBE_TIMEOUT_S = 5.0


class Usage:
    """Measures the CPU time and memory of a process tree while the context is open.

    Args:
        pid: The root of the tree.

    Attributes:
        cpu_s: CPU time, in seconds; 0 until the context closes.
        peak_mb: Largest memory so far, in MB.
    """

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.cpu_s = 0.0
        self.peak_mb = 0.0

    def __enter__(self) -> Usage:
        self._began_cpu_s = self._cpu_s()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_s = self._cpu_s() - self._began_cpu_s
        self._done.set()
        self._thread.join()

    def _tree(self) -> list[psutil.Process]:
        return [self._root, *self._root.children(recursive=True)]

    def _cpu_s(self) -> float:
        total_s = 0.0
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total_s += times.user + times.system
        return total_s

    def _sample(self) -> None:
        while True:
            total = 0
            for process in self._tree():
                with contextlib.suppress(psutil.Error):
                    total += process.memory_full_info().pss  # counts shared memory once
            self.peak_mb = max(self.peak_mb, total / 1e6)
            if self._done.wait(_SAMPLE_S):
                return


@contextlib.contextmanager
def awake(pid: int) -> Iterator[None]:
    """Let a stopped process tree run. Stopped, it takes no core from other measurements."""
    send_signal(pid, signal.SIGCONT)
    try:
        yield
    finally:
        send_signal(pid, signal.SIGSTOP)


def send_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process and all its children."""
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@contextlib.contextmanager
def running_baseline(module: str, arguments: Sequence[str], log: Path) -> Iterator[tuple[str, int]]:
    """Run a server of ``bench.baselines`` on a free loopback port.

    Args:
        module: Name of the server's module.
        arguments: Its arguments except ``--port``.
        log: File for its output.

    Yields:
        The server's URL and its process id.

    Raises:
        BenchError: The server did not start.
    """
    (port,) = free_ports(1)
    command = [sys.executable, "-m", f"bench.baselines.{module}", *arguments, "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait_until_listening(port, process, log)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            os.killpg(process.pid, signal.SIGCONT)  # a stopped process would not notice SIGTERM
        stop(process)


def _wait_until_listening(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise BenchError(f"a baseline ended with code {process.returncode}; {log} says why.")
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=_PROBE_TIMEOUT_S).close()
        except urllib.error.HTTPError:  # any answer will do
            return
        except OSError:
            time.sleep(_SAMPLE_S)
        else:
            return
    raise BenchError(f"a baseline did not listen within {START_TIMEOUT_S:g} s; {log} says why.")
