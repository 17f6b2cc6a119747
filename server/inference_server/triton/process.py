"""Runs a tritonserver as a child process: on free ports, waited for, and stopped for certain."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from inference_server.addresses import LOOPBACK, open_url
from inference_server.errors import ServerError

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
PORT_ATTEMPTS = 3
_POLL_S = 0.1
_PROBE_TIMEOUT_S = 2.0
_SHOWN_LOG_LINES = 20
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A server that is ready.

    Attributes:
        url: ``http://host:port`` of the HTTP endpoint.
        metrics_url: URL of the Prometheus metrics.
        process: tritonserver itself.
        repository: The model repository that it serves.
        log: File with its output.
    """

    url: str
    metrics_url: str
    process: subprocess.Popen[bytes]
    repository: Path
    log: Path


@contextlib.contextmanager
def running_server(repository: Path, *, log: Path, arguments: Sequence[str] = ()) -> Iterator[RunningServer]:
    """Run tritonserver on free loopback ports, without gRPC, until the context ends or this process dies.

    Args:
        repository: The model repository.
        log: File for the server's output.
        arguments: More of Triton's arguments.

    Yields:
        The server, ready to answer.

    Raises:
        ServerError: The server died or was not ready within ``START_TIMEOUT_S``; the message has the end of its log.
    """
    for attempt in range(PORT_ATTEMPTS):
        http, metrics = free_ports(2)
        process = _start(repository, http, metrics, arguments, log)
        try:
            server = RunningServer(
                url=f"http://{LOOPBACK}:{http}",
                metrics_url=f"http://{LOOPBACK}:{metrics}/metrics",
                process=process,
                repository=repository,
                log=log,
            )
            if not _wait_until_ready(server) and attempt < PORT_ATTEMPTS - 1:
                continue  # another program took a port meanwhile
            yield server
            return
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes], timeout_s: float = STOP_TIMEOUT_S) -> int:
    """Stop a server: ask, wait for ``timeout_s`` seconds, kill its process group; return the exit code."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # model processes may outlive a server that was killed
    return process.wait()


def _start(repository: Path, http: int, metrics: int, arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "inference_server.triton.command", f"--model-repository={repository}",
               f"--http-port={http}", f"--http-address={LOOPBACK}", "--allow-grpc=false",
               f"--metrics-port={metrics}", f"--metrics-address={LOOPBACK}", *arguments]  # fmt: skip
    with log.open("wb") as output:
        return start_child(command, output=output)


def _wait_until_ready(server: RunningServer) -> bool:
    """Wait for a server; return False if another program has one of its ports."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if server.process.poll() is not None:
            end = _end_of(server.log)
            if "already in use" in end:
                return False
            raise ServerError(
                f"tritonserver ended with code {server.process.returncode}. The end of {server.log}:\n{end}"
            )
        with (
            contextlib.suppress(OSError),
            open_url(f"{server.url}/v2/health/ready", timeout=_PROBE_TIMEOUT_S),
        ):
            return True
        time.sleep(_POLL_S)
    raise ServerError(
        f"tritonserver was not ready within {START_TIMEOUT_S:g} s. The end of {server.log}:\n{_end_of(server.log)}"
    )


def start_child(
    arguments: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
    errors: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own; the kernel kills it when this process dies.

    Args:
        arguments: The program and its arguments.
        folder: Working directory; None: that of this process.
        environment: Environment variables; None: those of this process.
        output: File for standard output and standard error; None: those of this process.
        errors: Descriptor for standard error alone.
    """
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return subprocess.Popen(
        arguments,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if errors is None and output is not None else errors,
        start_new_session=True,
        preexec_fn=prepare,  # noqa: PLW1509  (only makes system calls)
    )


def free_ports(count: int) -> list[int]:
    """Ask the system for loopback ports that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind((LOOPBACK, 0))
        return [listener.getsockname()[1] for listener in sockets]


def _end_of(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith(("E", "error:", "tritonserver:"))]
    return "\n".join((errors or lines)[-_SHOWN_LOG_LINES:])
