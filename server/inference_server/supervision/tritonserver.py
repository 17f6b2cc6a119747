"""One run of tritonserver: its process, its log, and its shared memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

from inference_server.supervision.diagnosis import STOPPED_S
from inference_server.supervision.log_relay import relay
from inference_server.supervision.model_processes import is_stopped
from inference_server.supervision.shared_memory import SharedMemory
from inference_server.triton.launch import Launch
from inference_server.triton.missing_gpu import WithoutGpu, has_gpu
from inference_server.triton.process import start_child

LAST_WORDS_S = 1.0  # to relay the rest of a killed process's log


class Tritonserver:
    """A tritonserver that runs from the creation of this object until ``kill``.

    Args:
        launch: The program to start.
        memory: The server's regions of shared memory, which ``kill`` removes.

    Attributes:
        pid: The server's process id.
    """

    def __init__(self, launch: Launch, memory: SharedMemory) -> None:
        self._memory = memory
        log, errors = os.pipe()
        self._process = start_child(launch.arguments, environment=launch.environment, errors=errors)
        os.close(errors)
        edit = None if has_gpu() else WithoutGpu()
        self._relay = threading.Thread(target=relay, args=(log, sys.stderr.fileno(), edit), daemon=True)
        self._relay.start()
        self._stopped_since_s: float | None = None
        self.pid = self._process.pid

    def failure(self) -> str:
        """Return what happened to the process, in words; "" if it is running."""
        code = self.exit_code()
        if code is not None:
            return f"it ended with code {code}"
        if not is_stopped(self.pid):
            self._stopped_since_s = None
        elif self._stopped_since_s is None:
            self._stopped_since_s = time.monotonic()
        elif time.monotonic() - self._stopped_since_s >= STOPPED_S:
            return "it was stopped"
        return ""

    def exit_code(self) -> int | None:
        """Return the exit code; None while the process exists."""
        return self._process.poll()

    def terminate(self, timeout_s: float) -> None:
        """Ask the process to end, and wait at most ``timeout_s``."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def kill_processes(self) -> None:
        """Kill the process and its model processes, which may outlive it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def kill(self) -> None:
        """Kill the processes and remove their shared memory."""
        self.kill_processes()
        self._process.wait()
        self._relay.join(LAST_WORDS_S)
        self._memory.remove_regions()
