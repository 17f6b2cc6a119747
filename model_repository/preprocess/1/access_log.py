"""The access log: one line of JSON for each request, on the server's standard output."""

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

from parameters import Given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from parameters import Parameters

STDOUT = 1
LONGEST_LINE = select.PIPE_BUF  # bytes that a pipe takes in one piece even if other models write to it
LONGEST_REQUEST_ID = 128
MOST_WAITING = 1000  # lines that wait for a slow reader
CLOSE_TIMEOUT_S = 1.0


def entry(
    parameters: Parameters,
    *,
    time_s: float,
    model_version: int,
    images: int,
    reasons: Iterable[str],
    labels: Iterable[str] = (),
    mode: str | None = None,
    threshold: float | None = None,
    is_direct: bool = False,
    refused: str | None = None,
) -> bytes:
    """Make a request's line, without image content and file names.

    Args:
        parameters: The request's parameters.
        time_s: Time of the answer, in seconds since 1970.
        model_version: The version that answered.
        images: Number of images.
        reasons: Code of the reason for each image without an answer.
        labels: The label of each image with an answer.
        mode: ``clustering`` or ``classification``; None if unknown.
        threshold: The threshold in force; None if unknown, or in classification mode.
        is_direct: Whether the request went to ``cluster_head`` directly.
        refused: Code of the reason if the whole request was refused; None if it was answered.

    Returns:
        A line of ASCII with its line feed, at most ``LONGEST_LINE`` bytes: it lacks labels that would make it longer.
    """
    time = datetime.fromtimestamp(time_s, timezone.utc).isoformat(timespec="milliseconds")  # noqa: UP017  (Python 3.10)
    fields: dict[str, Any] = {
        "time": time.replace("+00:00", "Z"),
        "status": "ok" if refused is None else "refused",
        "refused": refused,
        "client": parameters.client,
        "request_id": parameters.request_id[:LONGEST_REQUEST_ID] or None,
        "model_version": model_version,
        "mode": mode,
        "sim_thres": parameters.threshold.value if isinstance(parameters.threshold, Given) else None,
        "threshold": threshold,
        "direct": is_direct or None,
        "images": images,
        "undecodable": dict(Counter(reasons)) or None,
        "labels": dict(Counter(labels)) or None,
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    line = _encode(fields)
    if len(line) > LONGEST_LINE:
        fields.pop("labels", None)
        line = _encode(fields)
    return line


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode("ascii") + b"\n"


class AccessLog:
    """Writes lines in a thread of its own, so that nothing else waits for a slow reader.

    Lines beyond ``MOST_WAITING`` are lost and counted, and so are all lines once the reader is gone.

    Args:
        warn: Called with a message when the output first fails.
        descriptor: The file descriptor to write to.
    """

    def __init__(self, warn: Callable[[str], None], *, descriptor: int = STDOUT) -> None:
        self._warn = warn
        self._descriptor = descriptor
        self._waiting: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._overflowed = self._unwritten = self._reported = 0  # lines; each counted by one thread only
        self._failure: str | None = None
        self._warned = False
        self._thread = threading.Thread(target=self._write_lines, name="access-log", daemon=True)
        self._thread.start()

    def write(self, lines: Iterable[bytes]) -> int:
        """Queue lines to be written.

        Args:
            lines: Results of ``entry``.

        Returns:
            Number of lines lost since the last call.
        """
        for line in lines:
            try:
                self._waiting.put_nowait(line)
            except queue.Full:
                self._overflowed += 1
        if self._failure is not None and not self._warned:
            self._warned = True
            self._warn(self._failure)
        lost = self._overflowed + self._unwritten - self._reported
        self._reported += lost
        return lost

    def close(self) -> None:
        """Write the waiting lines; give up after ``CLOSE_TIMEOUT_S``."""
        try:
            self._waiting.put(None, timeout=CLOSE_TIMEOUT_S)
        except queue.Full:
            return
        self._thread.join(CLOSE_TIMEOUT_S)

    def _write_lines(self) -> None:
        is_open = True
        for lines in self._pieces():
            try:
                if is_open:
                    _write_whole(self._descriptor, b"".join(lines))
            except OSError as error:
                is_open = error.errno not in (errno.EPIPE, errno.EBADF)
                outcome = "lines are lost" if is_open else "it ends here"
                self._failure = f"access log: standard output can't be written ({error.strerror}); {outcome}"
                self._unwritten += len(lines)
            else:
                self._unwritten += 0 if is_open else len(lines)

    def _pieces(self) -> Iterator[list[bytes]]:
        """Yield waiting lines, as many as may be written in one piece, until the log is closed."""
        lines: list[bytes] = []
        while True:
            if lines and self._waiting.empty():
                yield lines
                lines = []
            line = self._waiting.get()
            if lines and (line is None or sum(map(len, lines)) + len(line) > LONGEST_LINE):
                yield lines
                lines = []
            if line is None:
                return
            lines.append(line)


def _write_whole(descriptor: int, line: bytes) -> None:
    while line:
        try:
            line = line[os.write(descriptor, line) :]
        except BlockingIOError:  # another process has made the shared output non-blocking
            select.select([], [descriptor], [])
