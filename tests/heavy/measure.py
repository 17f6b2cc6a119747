"""The cost of decoding one file, in processes of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.heavy.family import family_mb, family_seconds

SAMPLED_S = 0.1


class Cost(NamedTuple):
    """The cost of decoding a file, of all its processes together.

    Args:
        seconds: Processor time.
        memory_mb: The most memory.
        answer: "decoded", or the reason.
    """

    seconds: float
    memory_mb: float
    answer: str

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s, {self.memory_mb:.0f} MB, {self.answer}"


def measure(file: Path, limit_s: float) -> Cost:
    """Decode a file as the server does. End the decoding after this many seconds of processor time."""
    command = [sys.executable, "-m", "tests.heavy.decode", str(file)]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL, start_new_session=True)
        memory_mb, ended = 0.0, 0
        while not ended:
            memory_mb = max(memory_mb, family_mb(process.pid))
            if family_seconds(process.pid) > limit_s:
                os.killpg(process.pid, signal.SIGKILL)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            time.sleep(SAMPLED_S)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read()
    if process.returncode == 0:
        return Cost(memory_mb=memory_mb, **json.loads(said))
    answer = f"over {limit_s:g} s" if process.returncode == -signal.SIGKILL else f"ended with {process.returncode}"
    return Cost(usage.ru_utime + usage.ru_stime, memory_mb, answer)
