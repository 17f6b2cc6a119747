"""Processor time and memory of processes and all their descendants."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import psutil

_PROPORTIONAL = "Pss:"


def family_seconds(*pids: int) -> float:
    """Return the processor time of processes and all their descendants, including those that have ended."""
    seconds = 0.0
    for member in _family(pids):
        with contextlib.suppress(psutil.Error):
            seconds += sum(member.cpu_times()[:4])  # user and system time, its own and of children that have ended
    return seconds


def family_mb(*pids: int) -> float:
    """Return the sum of the proportional set sizes, MB, of processes and their descendants."""
    return sum(_proportional_bytes(member.pid) for member in _family(pids)) / 1e6


def _family(pids: Iterable[int]) -> list[psutil.Process]:
    """List processes and their descendants, without those that have ended."""
    members: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            members += [process, *process.children(recursive=True)]
    return members


def _proportional_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):  # the process has ended
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith(_PROPORTIONAL):
                return int(line.split()[1]) * 1024
    return 0
