"""Decoding in processes that can be ended: each image and each request has a budget of time and memory.

A decoder that a hostile file keeps busy can't be interrupted, only killed. So files are decoded in processes of
``decoder_process.py``, which are killed once a file has used up its processor time, and whose memory is limited.

Several instances of ``preprocess`` answer one request each, with decoders of their own, among which the system divides
the cores. Two things they share, by tokens:

* Being slow. All instances but one may be busy with requests that have taken long; the last one gives such a request
  up. So whatever is sent, a request with small images soon finds an instance. Decoders of slow requests yield the cores
  to others.
* Memory, for images that take more than a little.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import secrets
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

PROGRAM = Path(__file__).with_name("decoder_process.py")
MOST_PROCESSES = 4  # of one instance
# Processor time after which a request is slow: as much as a photograph of 12 megapixels takes, and for each image that
# it has decoded as much as one of a megapixel takes.
SLOW_SECONDS, SLOW_SECONDS_PER_DECODED = 0.3, 0.02
SLOW_NICENESS = 19
LONGEST_MEMORY_WAIT_S = 0.3  # of a request that is not slow
REQUEST_SECONDS = 2.5  # processor time of a request, in times of what one image may take
REQUEST_TIMEOUT_S = 20.0  # where other programs are busy, or other requests have the memory
LITTLE_MEMORY_BYTES = 32 * 2**20  # which an image may take without a token
MEMORY_TOKENS = 4  # each stands for that share of what the largest image may take
KEPT_MEMORY_BYTES = 64 * 2**20  # a decoder that may have taken more is replaced, which gives the memory back
FILE_COPIES = 3  # of a file, at most, in its decoder: base64 text, the text without line breaks, what it stands for
MOST_CRASHES = 2  # of decoders, before the file is blamed
# Of decoders. glibc gives memory back after each image otherwise, and a fifth of the time goes into getting it again,
# page by page; numpy would start threads.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
    "OPENBLAS_NUM_THREADS": "1",
}

# What decoder_process.py is told, and answers.
FORK = 0
COMMAND = struct.Struct("<i")  # FORK, with descriptors of a socket and of memory for pixels; or the process to end
TASK = struct.Struct("<QQ")  # length of the file that follows; the memory in bytes that it may take
REPLY = struct.Struct("<BQ")  # one of the next four; memory in bytes that an expensive file needs; a reason follows
DECODED, REFUSED, EXPENSIVE, OUT_OF_MEMORY = range(4)
LONGEST_REPLY = 4096  # bytes, which arrive in one piece

_ANSWER_TIMEOUT_S = 10.0  # of a process that is idle
_END_TIMEOUT_S = 2.0
_TOKEN_POLL_S = 0.02
_SHORTEST_WAIT_S = 0.002


class BusyError(RuntimeError):
    """Other requests have what this one needs; another try may succeed."""


class DecodingError(OSError):
    """Nothing can be decoded here, whatever the files are."""


class _NoProcessError(OSError):
    """The system starts no further process just now."""


class Tokens:
    """A number of tokens that processes of the same user share; what a process holds is free again when it ends.

    A token is a name in the system's abstract namespace of sockets, which one process can have at a time (unix(7)).

    Args:
        name: What they are for.
        count: How many there are.
    """

    def __init__(self, name: str, count: int) -> None:
        self._names = [f"\0{name}-{os.getuid()}-{number}" for number in range(count)]
        self._held: list[socket.socket] = []

    def hold(self, wanted: int) -> bool:
        """Give tokens back, or take such as are free, to hold that many; say whether it holds them."""
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
    """Decodes the image files of one request at a time, several at once; none costs another its pixels.

    Not for several threads.

    Args:
        size: Side S of the results in pixels.
        reduced, limits: As ``decode_pixels`` of ``preprocessing.py`` takes them.
        processes: Files decoded at once, up to ``MOST_PROCESSES``; 0: as many as there are cores for this process.
        instances: How many of these share the tokens. All but one may be slow; one alone may be.
        name: What the tokens are named after: the same for those who share them, and for nobody else.

    Raises:
        DecodingError: The system lets us start no process.
    """

    def __init__(
        self, size: int, *, reduced: bool, limits: Any, processes: int = 0, instances: int = 1, name: str | None = None
    ) -> None:
        self.size = size
        self.limits = limits
        self.most_processes = min(processes or _available_cores(), MOST_PROCESSES)
        name = name or f"decoders-{secrets.token_hex(8)}"
        self.slow = Tokens(f"{name}-slow", max(1, instances - 1))
        self.memory = Tokens(f"{name}-memory", MEMORY_TOKENS)
        self.memory_turn = Tokens(f"{name}-turn", 1)  # to take memory, or smaller images would always be faster
        self._forker = _Forker(json.dumps({"size": size, "reduced": reduced, "limits": limits}), size)
        self._idle = [self._forker.fork()]

    def decode(self, files: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], list[str]]:
        """Decode N files or base64 texts, as ``decode_pixels`` takes them, however long they take together.

        Returns:
            Pixels, uint8 [N, S, S, 3], zeros for an undecodable file; and N reasons, "" for a decoded file.

        Raises:
            DecodingError: The system lets us start no process any more.
        """
        request = self._run(_Request(self, files))
        return request.pixels, request.reasons

    def decode_request(self, files: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], list[str], list[float]]:
        """Decode as ``decode`` does, within the budget of a request.

        Returns:
            Also the seconds that each file spent in decoders.

        Raises:
            BusyError: Other requests have what this one needs.
            DecodingError: The system lets us start no process any more.
        """
        request = self._run(_BoundedRequest(self, files))
        return request.pixels, request.reasons, request.seconds

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

    def take(self) -> _Decoder:
        """Give an idle decoder, or start one."""
        return self._idle.pop() if self._idle else self._forker.fork()

    def put_back(self, decoder: _Decoder) -> None:
        """Keep a decoder for other files."""
        self._idle.append(decoder)

    def end_idle(self) -> None:
        """End the decoders that have nothing to do, which may be dead."""
        while self._idle:
            self._idle.pop().end()

    def _run(self, request: _Request) -> _Request:
        try:
            request.run()
        finally:
            request.close()
            self._give_tokens_back()
        if not self._idle:
            with contextlib.suppress(DecodingError):  # the next request will say so
                self._idle.append(self._forker.fork())
        return request

    def _give_tokens_back(self) -> None:
        for tokens in (self.slow, self.memory, self.memory_turn):
            tokens.hold(0)


class _Image:
    """A file on its way through decoders."""

    def __init__(self, row: int, data: bytes) -> None:
        self.row = row
        self.data = data
        self.memory_bytes = LITTLE_MEMORY_BYTES
        self.used_s = 0.0  # of processor time, by decoders that are done
        self.crashes = 0


class _Request:
    """The files of a request, and what becomes of them. Short files go first: they are the cheap ones, mostly."""

    def __init__(self, decoders: Decoders, files: Sequence[bytes]) -> None:
        self.pixels = np.zeros((len(files), decoders.size, decoders.size, 3), np.uint8)
        self.reasons = [""] * len(files)
        self.seconds = [0.0] * len(files)
        self._decoders = decoders
        self._limits = decoders.limits
        images = [_Image(row, data) for row, data in enumerate(files)]
        self._waiting = deque(sorted(images, key=lambda image: len(image.data)))
        self._busy: dict[_Decoder, _Image] = {}
        self._ended_cpu_s = 0.0  # processor time of what is no longer busy
        self._decoded = 0
        self._most_processes = decoders.most_processes
        self._selector = selectors.DefaultSelector()

    def run(self) -> None:
        """Decode the files.

        Raises:
            DecodingError: The system lets us start no process any more.
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
            for key, _ in self._selector.select(self._longest_wait_s(used_s)):
                self._settle(key.data, key.data.receive())
            for decoder in [each for each in self._busy if self._left_s(each) <= 0]:
                reason = f"too slow to decode: more than {self._limits.seconds:g} s of processor time"
                self._end(decoder, self._remove(decoder), reason)

    def close(self) -> None:
        """End what is still busy."""
        for decoder in list(self._busy):
            self._remove(decoder)
            decoder.end()
        self._selector.close()

    def _check_budget(self) -> float:
        """Return the processor time that the files have used so far, in seconds."""
        return self._ended_cpu_s + sum(decoder.used_s() for decoder in self._busy)

    def _longest_wait_s(self, used_s: float) -> float:
        """Return the time until something has to be looked at again, whether or not a decoder has replied."""
        if self._waiting and len(self._busy) < self._most_processes:  # for memory
            return _TOKEN_POLL_S
        return max(min(map(self._left_s, self._busy)), _SHORTEST_WAIT_S)

    def _left_s(self, decoder: _Decoder) -> float:
        """Return the processor time that a file in a decoder has left, in seconds."""
        return float(self._limits.seconds - self._busy[decoder].used_s - decoder.used_s())

    def _has_memory(self) -> bool:
        """Say whether the next file has its memory, and take it where it is free."""
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

    def _start(self, decoder: _Decoder, image: _Image) -> None:
        self._busy[decoder] = image
        self._selector.register(decoder, selectors.EVENT_READ, decoder)
        decoder.start(image.data, min(image.memory_bytes, self._limits.memory_bytes))

    def _remove(self, decoder: _Decoder) -> _Image:
        image = self._busy.pop(decoder)
        self._selector.unregister(decoder)
        image.used_s += decoder.used_s()
        self._ended_cpu_s += decoder.used_s()
        self.seconds[image.row] += decoder.elapsed_s()
        if self._tokens(image):
            self._decoders.memory.hold(sum(map(self._tokens, self._busy.values())))
        return image

    def _end(self, decoder: _Decoder, image: _Image, reason: str) -> None:
        decoder.end()
        self.reasons[image.row] = reason

    def _settle(self, decoder: _Decoder, reply: bytes) -> None:
        """Note what became of a file; have it decoded again where that may help."""
        image = self._remove(decoder)
        if not reply:
            decoder.end()
            self._decoders.end_idle()  # they may have died of the same: the death of the program that forked them
            image.crashes += 1
            if image.crashes < MOST_CRASHES:
                self._waiting.append(image)
            else:
                self.reasons[image.row] = "broken file: it ends its decoder"
            return
        status, needed_bytes = REPLY.unpack(reply[: REPLY.size])
        if status == DECODED:
            self.pixels[image.row] = decoder.pixels
            self._decoded += 1
        elif status == EXPENSIVE:
            image.memory_bytes = needed_bytes + FILE_COPIES * len(image.data)
            self._waiting.append(image)
        elif status == OUT_OF_MEMORY and image.memory_bytes < self._limits.memory_bytes:
            image.memory_bytes = self._limits.memory_bytes
            self._waiting.append(image)
        elif status == OUT_OF_MEMORY:
            most_mb = self._limits.memory_bytes / 1e6
            self.reasons[image.row] = f"too large to decode: it takes more than {most_mb:,.0f} MB of memory"
        else:
            self.reasons[image.row] = reply[REPLY.size :].decode()
        self._keep(decoder)

    def _keep(self, decoder: _Decoder) -> None:
        if decoder.memory_bytes <= KEPT_MEMORY_BYTES:
            self._decoders.put_back(decoder)
        else:
            decoder.end()


class _BoundedRequest(_Request):
    """A request that must not take much from others."""

    def __init__(self, decoders: Decoders, files: Sequence[bytes]) -> None:
        super().__init__(decoders, files)
        self._most_seconds: float = REQUEST_SECONDS * self._limits.seconds
        self._ends_s = time.monotonic() + REQUEST_TIMEOUT_S
        self._waited_s = 0.0  # for memory, in waits that are over
        self._memory_since_s = math.inf  # since when it has waited for memory, earlier waits counted
        self._is_slow = False

    def _check_budget(self) -> float:
        used_s = super()._check_budget()
        now_s = time.monotonic()
        if used_s >= self._most_seconds:
            most = f"{self._most_seconds:g} s of processor time"
            reason = f"too slow to decode: the images of this request take more than {most}"
            for decoder in list(self._busy):
                self._end(decoder, self._remove(decoder), reason)
            while self._waiting:
                self.reasons[self._waiting.popleft().row] = reason
        if now_s > self._ends_s:
            raise BusyError(f"the images were not decoded within {REQUEST_TIMEOUT_S:g} s, since others are; try again")
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

    def _start(self, decoder: _Decoder, image: _Image) -> None:
        super()._start(decoder, image)
        if self._is_slow:
            decoder.yield_cores()

    def _keep(self, decoder: _Decoder) -> None:
        if self._is_slow:  # a process may not take back that it yields
            decoder.end()
        else:
            super()._keep(decoder)


class _Decoder:
    """A process that decodes one file at a time."""

    def __init__(self, forker: _Forker, pid: int, tasks: socket.socket, size: int, shared: mmap.mmap) -> None:
        self._forker = forker
        self._pid = pid
        self._tasks = tasks
        self.pixels: npt.NDArray[np.uint8] = np.frombuffer(shared, np.uint8).reshape(size, size, 3)
        self.memory_bytes = 0
        self._began_s = self._began_cpu_s = 0.0

    def fileno(self) -> int:
        """Return the descriptor that can be read when there is a reply."""
        return self._tasks.fileno()

    def start(self, data: bytes, memory_bytes: int) -> None:
        """Have a file decoded that may take so much memory."""
        self.memory_bytes = memory_bytes
        self._began_s, self._began_cpu_s = time.monotonic(), self._cpu_s()
        header = TASK.pack(len(data), memory_bytes)
        try:
            sent = self._tasks.sendmsg([header, data], [], socket.MSG_NOSIGNAL)
            if sent < len(header) + len(data):
                self._tasks.sendall(memoryview(data)[sent - len(header) :], socket.MSG_NOSIGNAL)
        except OSError:  # it is gone, or reads nothing: both are told by an empty reply
            with contextlib.suppress(OSError):
                self._tasks.shutdown(socket.SHUT_RDWR)

    def receive(self) -> bytes:
        """Read a reply that is there; empty if the process is gone. ``pixels`` then holds what it has decoded."""
        try:
            return self._tasks.recv(LONGEST_REPLY)
        except OSError:
            return b""

    def used_s(self) -> float:
        """Return the processor time that the file has used, in seconds."""
        return max(0.0, self._cpu_s() - self._began_cpu_s)

    def elapsed_s(self) -> float:
        """Return the time since the file was started, in seconds."""
        return time.monotonic() - self._began_s

    def yield_cores(self) -> None:
        """Let everybody else go first from now on."""
        with contextlib.suppress(OSError):  # it is gone
            os.setpriority(os.PRIO_PROCESS, self._pid, SLOW_NICENESS)

    def end(self) -> None:
        """End the process."""
        self.close()
        self._forker.end(self._pid)

    def close(self) -> None:
        """Let the process end when it has nothing to do."""
        self._tasks.close()

    def _cpu_s(self) -> float:
        """Read the process's clock of processor time, by the number that clock_getcpuclockid(3) gives it."""
        try:
            return float(time.clock_gettime(~self._pid << 3 | 2))
        except OSError:  # it is gone
            return 0.0


class _Forker:
    """Starts ``decoder_process.py``, and decoders by way of it."""

    def __init__(self, settings: str, size: int) -> None:
        self._settings = settings
        self._size = size
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def fork(self) -> _Decoder:
        """Start a decoder.

        Raises:
            DecodingError: The system does not let us.
        """
        for is_last in (False, True):  # the program may have been killed
            try:
                with contextlib.ExitStack() as stack:
                    tasks, theirs = socket.socketpair()
                    stack.callback(tasks.close)
                    with theirs:
                        decoder = self._fork(tasks, theirs)
                    stack.pop_all()
                    return decoder
            except (OSError, struct.error) as error:
                has_program = isinstance(error, _NoProcessError)
                if not has_program:
                    self.close()
                if has_program or is_last:
                    raise DecodingError(f"no process can be started to decode images ({error})") from error
        raise AssertionError("unreachable")

    def _fork(self, tasks: socket.socket, theirs: socket.socket) -> _Decoder:
        if self._control is None:
            self._start()
        tasks.settimeout(_ANSWER_TIMEOUT_S)
        descriptor = os.memfd_create("pixels", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, self._size * self._size * 3)
            shared = mmap.mmap(descriptor, 0)
            pid = self._ask(FORK, (theirs.fileno(), descriptor))
            if pid < 0:
                raise _NoProcessError(-pid, os.strerror(-pid))
            return _Decoder(self, pid, tasks, self._size, shared)
        finally:
            os.close(descriptor)

    def end(self, pid: int) -> None:
        """Kill a decoder, and wait for it."""
        try:
            self._ask(pid)
        except (OSError, struct.error):  # a late answer would be taken for that to the next question
            self.close()

    def close(self) -> None:
        """End the program, and its decoders with it."""
        if self._control is not None and self._process is not None:
            self._control.close()
            try:
                self._process.wait(_END_TIMEOUT_S)  # in which it ends its decoders, and waits for them
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._control = self._process = None

    def _ask(self, command: int, descriptors: Sequence[int] = ()) -> int:
        if self._control is None:
            raise BrokenPipeError
        socket.send_fds(self._control, [COMMAND.pack(command)], descriptors, socket.MSG_NOSIGNAL)
        (answer,) = COMMAND.unpack(self._control.recv(COMMAND.size))
        return int(answer)

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(_ANSWER_TIMEOUT_S)
        with theirs:
            # The stub's sys.executable is the Python whose packages it sees; it heeds no PYTHON* variables.
            options = ["-E", "-B"] if sys.flags.ignore_environment else ["-B"]
            command = [sys.executable, *options, str(PROGRAM), str(theirs.fileno()), self._settings]
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"} | ENVIRONMENT
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)


def _available_cores() -> int:
    return len(os.sched_getaffinity(0))
