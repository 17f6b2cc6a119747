"""The lines of a server's log that are copied."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from inference_server.supervision.log_relay import MOST_REPEATS, relay

REPEATED = b"[warn] Error from accept() call: Too many open files\n"


def _relayed(text: bytes, file: Path) -> bytes:
    source, target = os.pipe()
    with file.open("wb") as output:
        thread = threading.Thread(target=relay, args=(source, output.fileno()))
        thread.start()
        with os.fdopen(target, "wb") as log:
            log.write(text)
        thread.join()
    return file.read_bytes()


def test_line_that_repeats_is_counted_and_the_others_are_copied_in_order(tmp_path: Path) -> None:
    others = [f"line {number}\n".encode() for number in range(900)]
    text = b"".join(line + REPEATED * 200 for line in others)
    relayed = _relayed(text, tmp_path / "log").splitlines(keepends=True)
    *copied, counted = relayed
    assert [line for line in copied if line != REPEATED] == others
    assert copied.count(REPEATED) == MOST_REPEATS
    assert counted == b"inference-server: %d times more within 10 s: " % (900 * 200 - MOST_REPEATS) + REPEATED


def test_long_log_without_line_ends_is_copied_whole(tmp_path: Path) -> None:
    text = b"".join(b"%d " % number for number in range(100_000)) + b"\n\n\nno line's end"
    assert _relayed(text, tmp_path / "log") == text


def test_log_that_can_not_be_written_is_read_to_its_end() -> None:
    source, target = os.pipe()
    thread = threading.Thread(target=relay, args=(source, 10**6))  # no such descriptor
    thread.start()
    with os.fdopen(target, "wb") as log:
        log.write(REPEATED * 100_000)
    thread.join(10)
    assert not thread.is_alive()
