"""Keeps ``inference-console`` running in a process of its own: its failures never reach the server."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from inference_server.messages import say
from inference_server.supervision.failures import Failures, GivenUpError
from inference_server.triton.process import start_child, stop

CONSOLE_PORT = 8090
STOP_TIMEOUT_S = 12.0  # the console gives its own requests 10 s
LAST_LOOK_S = STOP_TIMEOUT_S + 1.0  # what the system can't end must not hold up the server's end
RESTART_PAUSE_S = 1.0
_POLL_S = 0.2
_NAME = "inference-console"


def console_command(
    url: str,
    *,
    port: int,
    model_repository: Path,
    base_data: Path | None,
    cache: Path,
    queries: Path | None,
) -> list[str]:
    """Return the command that starts the console, on loopback.

    ``inference_server`` must not import ``inference_console``, so the options are written out here.

    Args:
        url: ``http://host:port`` of the server.
        port: Port of the console.
        model_repository: The model repository that the server serves.
        base_data: The folder of base images; None: the console shows no base images and offers no change.
        cache: Folder that keeps computed embeddings.
        queries: Folder of images whose answers the console compares before a change; None: it compares none.
    """
    return [
        sys.executable, "-m", "inference_console",
        "--server_ip", url,
        "--port", str(port),
        "--model_repository", str(model_repository),
        "--cache", str(cache),
        *(["--base_data", str(base_data)] if base_data is not None else []),
        *(["--queries", str(queries)] if queries is not None else []),
    ]  # fmt: skip


class ConsoleKeeper:
    """Runs the console, and starts it again when it ends, on a thread of its own.

    The kernel kills the console when that thread ends, so the console never outlives ``inference-server``.

    Args:
        command: The result of ``console_command``.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._failures = Failures()
        self._stopping = threading.Event()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Keep the console running until the context ends; then end it, and wait for its end."""
        thread = threading.Thread(target=self._keep, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join(LAST_LOOK_S)

    def _keep(self) -> None:
        try:
            while not self._stopping.is_set():
                reason = self._run()
                if self._stopping.is_set():
                    return
                self._failures.add(_NAME, f"{_NAME} {reason}")
                say(f"{_NAME} {reason}, and is started again")
                self._stopping.wait(RESTART_PAUSE_S)
        except GivenUpError as error:
            say(f"the console is not started again: {error}. The server runs on without it")

    def _run(self) -> str:
        """Run the console until it ends, or is to end; return what happened to it, in words."""
        self._failures.note_replacement(_NAME)
        try:
            process = start_child(self._command)
        except OSError as error:
            return f"can't be started ({error.strerror})"
        while process.poll() is None:
            if self._stopping.wait(_POLL_S):
                stop(process, STOP_TIMEOUT_S)
        code = process.returncode
        return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
