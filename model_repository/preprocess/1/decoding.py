"""Decodes the images of a request: each image and each request has a budget of time and memory.

A decoder process (``forking.py``) is killed once its file has used up its processor time.

Several instances of ``preprocess`` answer one request each, with decoders of their own, which compete for the cores.
The instances share tokens of two kinds:

* Slow requests. All instances but one may work on requests that have taken long; the last instance refuses such a
  request. So whatever is sent, a request with small images soon finds an instance. Decoders of slow requests yield the
  cores to others.
* Memory, for images that need more than a little.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import select
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from forking import DECODED, EXPENSIVE, OUT_OF_MEMORY, REPLY, Decoder, DecodingError, Forker
from reasons import BROKEN, NONE, TOO_LARGE, TOO_SLOW, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

MOST_PROCESSES = 4  # of one instance
# A request is slow after the processor time of a photograph of 12 megapixels, plus that of a photograph of 1 megapixel
# for each image decoded so far.
SLOW_SECONDS, SLOW_SECONDS_PER_DECODED = 0.3, 0.02
LONGEST_MEMORY_WAIT_S = 0.3  # after which a request is slow
REQUEST_SECONDS = 2.5  # processor time of a request, as a multiple of an image's limit
REQUEST_TIMEOUT_S = 20.0  # for waits: other programs may be busy, other requests may have the memory
LITTLE_MEMORY_BYTES = 32 * 2**20  # an image may take this much without a token
MEMORY_TOKENS = 4  # each stands for a quarter of the memory that the largest image may take
KEPT_MEMORY_BYTES = 64 * 2**20  # a decoder that may have taken more is ended, which gives the memory back
FILE_COPIES = 3  # at most, in a decoder: base64 text, the text without line breaks, the decoded bytes
MOST_CRASHES = 2  # decoders that a file may crash before the file is blamed
_TOKEN_POLL_S = 0.02
_SHORTEST_WAIT_S = 0.002


class BusyError(RuntimeError):
    """Other requests hold the tokens that this request needs; another try may succeed."""


class Tokens:
    """Tokens that processes of the same user share; a process that ends frees its tokens.

    A token is a name in the abstract socket namespace, bound by one process at a time (unix(7)).

    Args:
        name: Common name of the tokens.
        count: Number of tokens.
    """

    def __init__(self, name: str, count: int) -> None:
        self._names = [f"\0{name}-{os.getuid()}-{number}" for number in range(count)]
        self._held: list[socket.socket] = []

    def hold(self, wanted: int) -> bool:
        """Take or give back tokens until ``wanted`` are held; return whether enough were free."""
        while len(self._held) > wanted:
            self._held.pop().close()
        for name in self._names:
            if len(self._held) == wanted:
                break
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                token = stack.enter_context(socket.socket(socket.AF_UNIX))
                token.bind(name)
                stack.pop_all()
                self._held.append(token)
        return len(self._held) == wanted


class Decoders:
    """Decodes the image files of one request at a time, several files at once; a bad file costs no other its pixels.

    Use an object in one thread only.

    Args:
        size: Side S of the results in pixels.
        reduced, geometry, limits: Arguments of ``decode`` in ``preprocessing.py``; an empty geometry is the default.
        processes: Files decoded at once, up to ``MOST_PROCESSES``; 0: one for each core that this process may use.
        instances: Number of ``Decoders`` that share the tokens. All but one may be slow; a single one may be slow too.
        name: Name of the tokens, shared by exactly the ``Decoders`` that share the tokens; None: a name of its own.

    Raises:
        DecodingError: The system can start no process.
    """

    def __init__(
        self,
        size: int,
        *,
        reduced: bool,
        geometry: Any = (),
        limits: Any,
        processes: int = 0,
        instances: int = 1,
        name: str | None = None,
    ) -> None:
        self.size = size
        self.limits = limits
        self.most_processes = min(processes or len(os.sched_getaffinity(0)), MOST_PROCESSES)
        name = name or f"decoders-{secrets.token_hex(8)}"
        self.slow = Tokens(f"{name}-slow", max(1, instances - 1))
        self.memory = Tokens(f"{name}-memory", MEMORY_TOKENS)
        self.memory_turn = Tokens(f"{name}-turn", 1)  # so that smaller images don't take a large one's memory forever
        settings = {"size": size, "reduced": reduced, "geometry": geometry, "limits": limits}
        self._forker = Forker(json.dumps(settings), size)
        self._idle = [self._forker.fork()]

    def decode(self, files: Sequence[bytes]) -> Results:
        """Decode N files or base64 texts, however long they take together.

        Raises:
            DecodingError: The system can start no further process.
        """
        return self._run(_Request(self, files))

    def decode_request(self, files: Sequence[bytes]) -> Results:
        """Decode N files within the budget of a request.

        Raises:
            BusyError: Other requests hold the tokens that this request needs, or its time is over.
            DecodingError: The system can start no further process.
        """
        return self._run(_BoundedRequest(self, files))

    def close(self) -> None:
        """End all processes."""
        for decoder in self._idle:
            decoder.close()
        self._forker.close()
        self._give_tokens_back()

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self) -> Decoder:
        """Return an idle decoder, or a new one."""
        return self._idle.pop() if self._idle else self._forker.fork()

    def put_back(self, decoder: Decoder) -> None:
        """Keep a decoder for later files."""
        self._idle.append(decoder)

    def end_idle(self) -> None:
        """End the idle decoders."""
        while self._idle:
            self._idle.pop().end()

    def _run(self, request: _Request) -> Results:
        try:
            request.run()
        finally:
            request.close()
            self._give_tokens_back()
        if not self._idle:
            with contextlib.suppress(DecodingError):  # the next request tries again
                self._idle.append(self._forker.fork())
        return Results(request.pixels, request.reasons, request.notes, request.seconds)

    def _give_tokens_back(self) -> None:
        for tokens in (self.slow, self.memory, self.memory_turn):
            tokens.hold(0)


class Results(NamedTuple):
    """What became of N files.

    Attributes:
        pixels: Pixels, uint8 [N, S, S, 3]; zeros for an undecodable file.
        reasons: Why each file has no pixels; ``NONE`` for a decoded file.
        notes: What the sender of each file should know; "" for nothing.
        seconds: Time that each file spent in decoders, in seconds.
    """

    pixels: npt.NDArray[np.uint8]
    reasons: list[Reason]
    notes: list[str]
    seconds: list[float]


class _Image:
    """A file on its way through decoders."""

    def __init__(self, row: int, data: bytes) -> None:
        self.row = row
        self.data = data
        self.memory_bytes = LITTLE_MEMORY_BYTES
        self.used_s = 0.0  # processor time in earlier decoders
        self.crashes = 0


class _Request:
    """The files of a request and their results. Short files go first, since most are cheap."""

    def __init__(self, decoders: Decoders, files: Sequence[bytes]) -> None:
        self.pixels = np.empty((len(files), decoders.size, decoders.size, 3), np.uint8)
        self.reasons = [NONE] * len(files)
        self.notes = [""] * len(files)
        self.seconds = [0.0] * len(files)
        self._decoders = decoders
        self._limits = decoders.limits
        images = [_Image(row, data) for row, data in enumerate(files)]
        self._waiting = deque(sorted(images, key=lambda image: len(image.data)))
        self._busy: dict[Decoder, _Image] = {}
        self._replying: dict[int, Decoder] = {}  # the busy ones by their descriptors
        self._poll = select.poll()
        self._ended_cpu_s = 0.0  # processor time of decoders that are no longer busy
        self._decoded = 0
        self._most_processes = decoders.most_processes

    def run(self) -> None:
        """Decode the files.

        Raises:
            DecodingError: The system can start no further process.
        """
        while self._waiting or self._busy:
            while self._waiting and len(self._busy) < self._most_processes and self._has_memory():
                try:
                    self._start(self._decoders.take(), self._waiting.popleft())
                except DecodingError:
                    if not self._busy:
                        raise
                    self._most_processes = len(self._busy)
            used_s = self._check_budget()
            for descriptor, _ in self._poll.poll(1000 * self._longest_wait_s(used_s)):
                decoder = self._replying[descriptor]
                self._settle(decoder, decoder.receive())
            for decoder in list(self._busy):
                if self._left_s(decoder) <= 0:
                    text = f"too slow to decode: more than {self._limits.seconds:g} s of processor time"
                    self._end(decoder, Reason(TOO_SLOW, text))

    def close(self) -> None:
        """End the decoders that are still busy."""
        for decoder in list(self._busy):
            self._remove(decoder)
            decoder.end()

    def _check_budget(self) -> float:
        """Return the processor time that the files have used so far, in seconds."""
        return self._ended_cpu_s + sum(decoder.used_s() for decoder in self._busy)

    def _longest_wait_s(self, used_s: float) -> float:
        """Return the longest time to wait for a decoder's reply, in seconds."""
        if self._waiting and len(self._busy) < self._most_processes:  # for memory
            return _TOKEN_POLL_S
        return max(min(map(self._left_s, self._busy)), _SHORTEST_WAIT_S)

    def _left_s(self, decoder: Decoder) -> float:
        """Return the processor time that a file in a decoder has left, in seconds."""
        return float(self._limits.seconds - self._busy[decoder].used_s - decoder.used_s())

    def _has_memory(self) -> bool:
        """Take the next file's memory if it is free; return whether the file has its memory."""
        wanted = sum(map(self._tokens, (*self._busy.values(), self._waiting[0])))
        memory, turn = self._decoders.memory, self._decoders.memory_turn
        if self._tokens(self._waiting[0]) and not (turn.hold(1) and memory.hold(wanted)):
            return False
        turn.hold(0)
        return True

    def _tokens(self, image: _Image) -> int:
        if image.memory_bytes <= LITTLE_MEMORY_BYTES:
            return 0
        share: float = image.memory_bytes / self._limits.memory_bytes
        return min(MEMORY_TOKENS, math.ceil(MEMORY_TOKENS * share))

    def _start(self, decoder: Decoder, image: _Image) -> None:
        self._busy[decoder] = image
        self._replying[decoder.fileno()] = decoder
        self._poll.register(decoder.fileno(), select.POLLIN)
        decoder.start(image.data, min(image.memory_bytes, self._limits.memory_bytes))

    def _remove(self, decoder: Decoder) -> _Image:
        image = self._busy.pop(decoder)
        self._poll.unregister(decoder.fileno())
        del self._replying[decoder.fileno()]
        used_s = decoder.used_s()
        image.used_s += used_s
        self._ended_cpu_s += used_s
        self.seconds[image.row] += decoder.elapsed_s()
        if self._tokens(image):
            self._decoders.memory.hold(sum(map(self._tokens, self._busy.values())))
        return image

    def _end(self, decoder: Decoder, reason: Reason) -> None:
        self._refuse(self._remove(decoder), reason)
        decoder.end()

    def _refuse(self, image: _Image, reason: Reason) -> None:
        self.reasons[image.row] = reason
        self.pixels[image.row] = 0

    def _settle(self, decoder: Decoder, reply: bytes) -> None:
        """Store a file's result, or queue the file again if another try may help."""
        image = self._remove(decoder)
        if not reply:
            decoder.end()
            self._decoders.end_idle()  # they are dead too if the program that forked them has died
            image.crashes += 1
            if image.crashes < MOST_CRASHES:
                self._waiting.append(image)
            else:
                self._refuse(image, Reason(BROKEN, "broken file: it crashes its decoder"))
            return
        status, needed_bytes = REPLY.unpack(reply[: REPLY.size])
        if status == DECODED:
            self.pixels[image.row] = decoder.pixels
            self.notes[image.row] = reply[REPLY.size :].decode()
            self._decoded += 1
        elif status == EXPENSIVE:
            image.memory_bytes = needed_bytes + FILE_COPIES * len(image.data)
            self._waiting.append(image)
        elif status == OUT_OF_MEMORY and image.memory_bytes < self._limits.memory_bytes:
            image.memory_bytes = self._limits.memory_bytes
            self._waiting.append(image)
        elif status == OUT_OF_MEMORY:
            most_mb = self._limits.memory_bytes / 1e6
            text = f"too large to decode: it takes more than {most_mb:,.0f} MB of memory"
            self._refuse(image, Reason(TOO_LARGE, text))
        else:
            self._refuse(image, Reason.unpack(reply[REPLY.size :].decode()))
        self._keep(decoder)

    def _keep(self, decoder: Decoder) -> None:
        if decoder.memory_bytes <= KEPT_MEMORY_BYTES:
            self._decoders.put_back(decoder)
        else:
            decoder.end()


class _BoundedRequest(_Request):
    """A request with a budget, so that it leaves time and memory to others."""

    def __init__(self, decoders: Decoders, files: Sequence[bytes]) -> None:
        super().__init__(decoders, files)
        self._most_seconds: float = REQUEST_SECONDS * self._limits.seconds
        self._ends_s = time.monotonic() + REQUEST_TIMEOUT_S
        self._waited_s = 0.0  # sum of the finished waits for memory
        self._memory_since_s = math.inf  # start of the present wait for memory, less the finished waits
        self._is_slow = False

    def _check_budget(self) -> float:
        used_s = super()._check_budget()
        now_s = time.monotonic()
        if used_s >= self._most_seconds:
            most = f"{self._most_seconds:g} s of processor time"
            reason = Reason(TOO_SLOW, f"too slow to decode: the images of this request take more than {most}")
            for decoder in list(self._busy):
                self._end(decoder, reason)
            while self._waiting:
                self._refuse(self._waiting.popleft(), reason)
        if now_s > self._ends_s:
            raise BusyError(
                f"the server is busy: the images were not decoded within {REQUEST_TIMEOUT_S:g} s; try again"
            )
        if not self._is_slow and (used_s >= self._slow_s() or now_s - self._memory_since_s > LONGEST_MEMORY_WAIT_S):
            if not self._decoders.slow.hold(1):
                raise BusyError("too many large images are being decoded; try again")
            self._is_slow = True
            for decoder in self._busy:
                decoder.yield_cores()
        return used_s

    def _longest_wait_s(self, used_s: float) -> float:
        if not self._busy and not self._waiting:
            return 0
        before_s = min(self._most_seconds, math.inf if self._is_slow else self._slow_s()) - used_s
        waits = (super()._longest_wait_s(used_s), before_s / max(1, len(self._busy)), self._ends_s - time.monotonic())
        return max(min(waits), _SHORTEST_WAIT_S)

    def _slow_s(self) -> float:
        return SLOW_SECONDS + SLOW_SECONDS_PER_DECODED * self._decoded

    def _has_memory(self) -> bool:
        has_memory = super()._has_memory()
        now_s = time.monotonic()
        if not has_memory:
            self._memory_since_s = min(self._memory_since_s, now_s - self._waited_s)
        elif self._memory_since_s < math.inf:
            self._waited_s, self._memory_since_s = now_s - self._memory_since_s, math.inf
        return has_memory

    def _start(self, decoder: Decoder, image: _Image) -> None:
        super()._start(decoder, image)
        if self._is_slow:
            decoder.yield_cores()

    def _keep(self, decoder: Decoder) -> None:
        if self._is_slow:  # without privileges, its priority can't be raised again
            decoder.end()
        else:
            super()._keep(decoder)
