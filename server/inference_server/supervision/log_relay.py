"""Relays tritonserver's log without its repetitions: it can print one line 100,000 times a second."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import Counter
from collections.abc import Callable

PERIOD_S = 10.0
MOST_REPEATS = 100  # of one line in a period; tracebacks of different errors share lines
_MOST_COUNTED = 1000  # different lines
_LONGEST_COUNTED = 1000  # bytes; longer lines are never dropped
_CHUNK = 1 << 16


Edit = Callable[[bytes], bytes | None]


def relay(source: int, target: int, edit: Edit | None = None) -> None:
    """Copy a log until its end; count further repeats of a line after ``MOST_REPEATS`` in ``PERIOD_S``.

    Args:
        source: Descriptor of the pipe to read; closed at the end.
        target: Descriptor of the file to write. Text that can't be written is lost.
        edit: Returns the line to write in place of a line, or None for no line.
    """
    poll = select.poll()
    poll.register(source, select.POLLIN)
    seen: Counter[bytes] = Counter()
    ends_s = time.monotonic() + PERIOD_S
    unfinished = b""
    try:
        while True:
            waiting = poll.poll(max(0.0, ends_s - time.monotonic()) * 1000)
            if time.monotonic() >= ends_s:
                _write(target, _counted(seen))
                seen.clear()
                ends_s = time.monotonic() + PERIOD_S
            if not waiting:
                continue
            chunk = os.read(source, _CHUNK)
            *lines, unfinished = (unfinished + chunk).split(b"\n")
            if edit is not None:
                lines = [line for line in map(edit, lines) if line is not None]
            _write(target, b"".join(_admitted(lines, seen)))
            if not chunk or len(unfinished) > _CHUNK:
                _write(target, unfinished)
                unfinished = b""
            if not chunk:
                _write(target, _counted(seen))
                return
    finally:
        os.close(source)


def _admitted(lines: list[bytes], seen: Counter[bytes]) -> list[bytes]:
    admitted = []
    for line in lines:
        if line in seen or (len(seen) < _MOST_COUNTED and len(line) <= _LONGEST_COUNTED):
            seen[line] += 1
        if seen[line] <= MOST_REPEATS:
            admitted.append(line + b"\n")
    return admitted


def _counted(seen: Counter[bytes]) -> bytes:
    return b"".join(
        b"inference-server: %d times more within %d s: %s\n" % (count - MOST_REPEATS, PERIOD_S, line)
        for line, count in seen.items()
        if count > MOST_REPEATS
    )


def _write(target: int, text: bytes) -> None:
    with contextlib.suppress(OSError):
        while text:
            text = text[os.write(target, text) :]
