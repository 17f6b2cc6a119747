"""The access log: a line of JSON for each request, on the server's standard output."""

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
    from collections.abc import Callable, Iterable

    from parameters import Parameters

STDOUT = 1
LONGEST_LINE = select.PIPE_BUF  # bytes that reach a pipe in one piece, while other models write to it
LONGEST_REQUEST_ID = 128
MOST_WAITING = 1000  # lines, while their reader is slow
CLOSE_TIMEOUT_S = 1.0


def entry(
    said: Parameters,
    *,
    model_version: int,
    images: int,
    reasons: Iterable[str],
    labels: Iterable[str] = (),
    mode: str | None = None,
    threshold: float | None = None,
    is_direct: bool = False,
    refused: str | None = None,
) -> bytes:
    """Write a request's line, which tells nothing of an image's content or a file's name.

    Args:
        said: The request's parameters.
        model_version: The version that answered.
        images: Number of images.
        reasons: The code of the reason, for each image without an answer.
        labels: The label of each image with an answer.
        mode: ``clustering`` or ``classification``; None: not known.
        threshold: The threshold in force; None: not known, or without meaning in this mode.
        is_direct: Whether embeddings were sent to ``cluster_head`` alone.
        refused: The code for which the request was refused as a whole; None: it was answered.

    Returns:
        A line of ASCII, line feed included, of at most ``LONGEST_LINE`` bytes: labels that would make it longer are
        left out.
    """
    time = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")  # noqa: UP017  (Python 3.10)
    fields: dict[str, Any] = {
        "time": time,
        "status": "ok" if refused is None else "refused",
        "refused": refused,
        "client": said.client,
        "request_id": said.request_id[:LONGEST_REQUEST_ID] or None,
        "model_version": model_version,
        "mode": mode,
        "sim_thres": said.threshold.value if isinstance(said.threshold, Given) else None,
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
    """Writes lines in a thread of its own, so that no answer waits for the reader of the lines.

    Lines that find no room while the reader is slow are lost and counted; so are all lines once the reader is gone.

    Args:
        warn: Called once if the output fails, with a message.
        descriptor: The file descriptor to write to.
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
        """Queue lines to be written.

        Args:
            lines: Lines that ``entry`` made.

        Returns:
            Number of lines that were lost since the last call.
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
        """Write the lines that wait, unless that takes longer than ``CLOSE_TIMEOUT_S``."""
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
        except BlockingIOError:  # another process that shares the output has made it non-blocking
            select.select([], [descriptor], [])
