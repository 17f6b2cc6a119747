"""What a process and all its descendants use."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

_PROPORTIONAL = "Pss:"


def family_seconds(pid: int = 0) -> float:
    """Return the processor time of a process (0: this one) and its descendants, of those that have ended too."""
    seconds = 0.0
    for member in _family(pid):
        with contextlib.suppress(psutil.Error):
            seconds += sum(member.cpu_times()[:4])  # user and system, its own and of children that have ended
    return seconds


def family_mb(pid: int = 0) -> float:
    """Return the sum of the proportional set sizes, MB, of a process (0: this one) and its descendants."""
    return sum(_proportional_bytes(member.pid) for member in _family(pid)) / 1e6


def _family(pid: int) -> list[psutil.Process]:
    """List a process and its descendants; none if it has ended."""
    try:
        process = psutil.Process(pid or os.getpid())
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _proportional_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):  # it has ended
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith(_PROPORTIONAL):
                return int(line.split()[1]) * 1024
    return 0
