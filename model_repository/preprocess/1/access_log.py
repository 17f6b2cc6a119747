"""A line of JSON for each request, on the server's standard output; the same file in both Python models."""

from __future__ import annotations

import errno
import json
import os
import queue
import select
import threading
from collections import Counter
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

STDOUT = 1
LONGEST_LINE = select.PIPE_BUF  # bytes that reach a pipe in one piece, while other models write to it
LONGEST_REQUEST_ID = 128
MOST_WAITING = 1000  # lines, when whoever reads them is slow
CLOSE_TIMEOUT_S = 1.0

# What an image's ERROR begins with, and its short name: a closed set, of which nothing is the sender's.
_REASONS = {
    "empty": "empty",
    "no image in a supported format": "unsupported",
    "broken": "broken",
    "too large": "too_large",
    "too slow": "too_slow",
    "not classified": "not_finite",
}
OTHER_REASON = "other"  # only where a caller of cluster_head makes up an ERROR of its own
REASONS = (*_REASONS.values(), OTHER_REASON)
UNDECODABLE_REASONS = REASONS[:5]


def reason_name(error: str) -> str:
    """Name the reason for which an image has no answer.

    Args:
        error: Its ``ERROR``, not empty.

    Returns:
        One of ``REASONS``.

    >>> reason_name("broken or truncated JPEG file")
    'broken'
    """
    return next((name for start, name in _REASONS.items() if error.startswith(start)), OTHER_REASON)


def entry(
    *,
    client: str,
    request_id: str,
    model_version: int,
    file_bytes: list[int] | None,
    images: int,
    errors: Iterable[str],
    sim_thres: float | None,
    labels: Iterable[str] = (),
    mode: str | None = None,
    refused: str | None = None,
) -> bytes:
    """Write what the access log says of a request; never of an image's content or a file's name.

    Args:
        client: Its client's id.
        request_id: The id that its sender gave it; cut to ``LONGEST_REQUEST_ID`` characters.
        model_version: The version that answered.
        file_bytes: Size of each image file, where it is known.
        images: Number of images.
        errors: The reason of each image without an answer.
        sim_thres: The threshold that it named, if any.
        labels: The label of each image with an answer.
        mode: ``clustering`` or ``classification``, where it is known.
        refused: Why it was refused as a whole; None for one that was answered.

    Returns:
        A line of ASCII, its line feed included, of at most ``LONGEST_LINE`` bytes: what grows with the number of
        images, sizes first, is left out of a longer one.
    """
    time = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")  # noqa: UP017  (Python 3.10)
    fields: dict[str, Any] = {
        "time": time,
        "status": "ok" if refused is None else "refused",
        "refused": refused,
        "client": client,
        "request_id": request_id[:LONGEST_REQUEST_ID] or None,
        "model_version": model_version,
        "mode": mode,
        "sim_thres": sim_thres,
        "images": images,
        "bytes": None if file_bytes is None else sum(file_bytes),
        "undecodable": dict(Counter(map(reason_name, errors))) or None,
        "labels": dict(Counter(labels)) or None,
        "file_bytes": file_bytes,
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    line = _encode(fields)
    for name in ("file_bytes", "labels"):
        if len(line) > LONGEST_LINE:
            fields.pop(name, None)
            line = _encode(fields)
    return line


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


class AccessLog:
    """Writes lines in a thread of its own, so that no answer waits for whoever reads them.

    Lines that do not fit while a reader is slow are lost, and counted; once the reader is gone, all are.

    Args:
        warn: Told once what is wrong with the output.
        descriptor: Where the lines go.
    """

    def __init__(self, warn: Callable[[str], None], *, descriptor: int = STDOUT) -> None:
        self._warn = warn
        self._descriptor = descriptor
        self._waiting: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._overflowed = self._unwritten = self._told = 0  # lines; each counted by one thread only
        self._failure: str | None = None
        self._warned = False
        self._thread = threading.Thread(target=self._write_lines, name="access-log", daemon=True)
        self._thread.start()

    def write(self, lines: Iterable[bytes]) -> int:
        """Have lines written, at some time.

        Args:
            lines: As ``entry`` makes them.

        Returns:
            The lines that were lost since the last call.
        """
        for line in lines:
            try:
                self._waiting.put_nowait(line)
            except queue.Full:
                self._overflowed += 1
        if self._failure is not None and not self._warned:
            self._warned = True
            self._warn(self._failure)
        lost = self._overflowed + self._unwritten - self._told
        self._told += lost
        return lost

    def close(self) -> None:
        """Write what is waiting, unless that takes longer than ``CLOSE_TIMEOUT_S``."""
        try:
            self._waiting.put(None, timeout=CLOSE_TIMEOUT_S)
        except queue.Full:
            return
        self._thread.join(CLOSE_TIMEOUT_S)

    def _write_lines(self) -> None:
        is_open = True
        while (line := self._waiting.get()) is not None:
            try:
                if is_open:
                    _write_whole(self._descriptor, line)
            except OSError as error:
                is_open = error.errno not in (errno.EPIPE, errno.EBADF)
                what = "lines are lost" if is_open else "it ends here"
                self._failure = f"access log: standard output can't be written ({error.strerror}); {what}"
                self._unwritten += 1
            else:
                self._unwritten += not is_open


def _write_whole(descriptor: int, line: bytes) -> None:
    while line:
        try:
            line = line[os.write(descriptor, line) :]
        except BlockingIOError:  # somebody who shares the output has made it so
            select.select([], [descriptor], [])
