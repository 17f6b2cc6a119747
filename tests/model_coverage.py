"""Saves the coverage of a Triton model's process now and then, since such a process ends without Python's own exit.

``make coverage`` has every Python of the environment import this.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from coverage import Coverage

_PERIOD_S = 0.5  # a process lives for a second after its model's finalize()
_PROCESS = "triton_python_b"  # the kernel keeps 15 characters of a program's name


def _save_again_and_again() -> None:
    while True:
        time.sleep(_PERIOD_S)
        coverage = Coverage.current()
        if coverage is not None:
            coverage.save()


if Path("/proc/self/comm").read_text(encoding="utf-8").startswith(_PROCESS):
    threading.Thread(target=_save_again_and_again, daemon=True).start()
