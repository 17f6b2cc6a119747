"""Starts the processes that decode files, and talks to them; ``decoder_process.py`` is their program.

A decoder that a hostile file keeps busy can't be interrupted, only killed. So files are decoded in processes with
limited memory, whose processor time can be read.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

PROGRAM = Path(__file__).with_name("decoder_process.py")
SLOW_NICENESS = 19
# For decoders. By default numpy starts threads, and glibc gives memory back after each image: getting it again page by
# page takes a fifth of the time.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
    "OPENBLAS_NUM_THREADS": "1",
}

# Messages to and from decoder_process.py.
FORK = 0
COMMAND = struct.Struct("<i")  # FORK, with descriptors of a socket and of memory for pixels; or the process to kill
TASK = struct.Struct("<QQ")  # length of the file that follows; memory in bytes that decoding it may take
REPLY = struct.Struct(
    "<BQ"
)  # one of the next four; memory in bytes that an expensive file needs; a note or reason follows
DECODED, REFUSED, EXPENSIVE, OUT_OF_MEMORY = range(4)
LONGEST_REPLY = 4096  # bytes; a reply arrives in one piece

_FIRST_START_TIMEOUT_S = 60.0  # nobody waits for images yet, and on a busy machine imports take long
_ANSWER_TIMEOUT_S = 10.0  # of an idle process
_END_TIMEOUT_S = 2.0


class DecodingError(OSError):
    """This machine can decode no file now, whatever the file."""


class _NoProcessError(OSError):
    """The system can start no further process now."""


class Decoder:
    """A process that decodes one file at a time."""

    def __init__(self, forker: Forker, pid: int, tasks: socket.socket, size: int, shared: mmap.mmap) -> None:
        self._forker = forker
        self._pid = pid
        self._tasks = tasks
        self.pixels: npt.NDArray[np.uint8] = np.frombuffer(shared, np.uint8).reshape(size, size, 3)
        self.memory_bytes = 0
        self._began_s = self._began_cpu_s = 0.0

    def fileno(self) -> int:
        """Return the descriptor that becomes readable with a reply."""
        return self._tasks.fileno()

    def start(self, data: bytes, memory_bytes: int) -> None:
        """Send a file to be decoded within ``memory_bytes``."""
        self.memory_bytes = memory_bytes
        self._began_s, self._began_cpu_s = time.monotonic(), self._cpu_s()
        header = TASK.pack(len(data), memory_bytes)
        try:
            sent = self._tasks.sendmsg([header, data], [], socket.MSG_NOSIGNAL)
            if sent < len(header) + len(data):
                self._tasks.sendall(memoryview(data)[sent - len(header) :], socket.MSG_NOSIGNAL)
        except OSError:  # the process is gone or reads nothing; its empty reply will tell
            with contextlib.suppress(OSError):
                self._tasks.shutdown(socket.SHUT_RDWR)

    def receive(self) -> bytes:
        """Read a reply; empty if the process is gone. After ``DECODED``, ``pixels`` holds the file's pixels."""
        try:
            return self._tasks.recv(LONGEST_REPLY)
        except OSError:
            return b""

    def used_s(self) -> float:
        """Return the processor time that the file has used, in seconds."""
        return max(0.0, self._cpu_s() - self._began_cpu_s)

    def elapsed_s(self) -> float:
        """Return the time since ``start``, in seconds."""
        return time.monotonic() - self._began_s

    def yield_cores(self) -> None:
        """Let all other processes go first from now on."""
        with contextlib.suppress(OSError):  # the process is gone
            os.setpriority(os.PRIO_PROCESS, self._pid, SLOW_NICENESS)

    def end(self) -> None:
        """Kill the process."""
        self.close()
        self._forker.end(self._pid)

    def close(self) -> None:
        """Close the connection, so that the process ends once it is idle."""
        self._tasks.close()

    def _cpu_s(self) -> float:
        """Read the process's clock of processor time, whose number is that of clock_getcpuclockid(3)."""
        try:
            return float(time.clock_gettime(~self._pid << 3 | 2))
        except OSError:  # the process is gone
            return 0.0


class Forker:
    """Starts ``decoder_process.py``, which forks the decoders."""

    def __init__(self, settings: str, size: int) -> None:
        self._settings = settings
        self._size = size
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._start_timeout_s = _FIRST_START_TIMEOUT_S

    def fork(self) -> Decoder:
        """Start a decoder.

        Raises:
            DecodingError: The system can start no further process.
        """
        for is_last in (False, True):  # twice, since the program may have been killed
            try:
                with contextlib.ExitStack() as stack:
                    tasks, theirs = socket.socketpair()
                    stack.callback(tasks.close)
                    with theirs:
                        decoder = self._fork(tasks, theirs)
                    stack.pop_all()
                    return decoder
            except (OSError, struct.error) as error:
                is_refused = isinstance(error, _NoProcessError)
                if not is_refused:
                    self.close()
                if is_refused or is_last:
                    raise DecodingError(f"no process can be started to decode images ({error})") from error
        raise AssertionError("unreachable")

    def _fork(self, tasks: socket.socket, theirs: socket.socket) -> Decoder:
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
            return Decoder(self, pid, tasks, self._size, shared)
        finally:
            os.close(descriptor)

    def end(self, pid: int) -> None:
        """Kill a decoder and wait for its end."""
        try:
            self._ask(pid)
        except (OSError, struct.error):  # a late answer would pass for the answer to the next command
            self.close()

    def close(self) -> None:
        """End the program, which ends its decoders."""
        if self._control is not None and self._process is not None:
            self._control.close()
            try:
                self._process.wait(_END_TIMEOUT_S)  # the program first kills its decoders
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._control = self._process = None

    def _ask(self, command: int, descriptors: Sequence[int] = ()) -> int:
        if self._control is None:
            raise BrokenPipeError
        socket.send_fds(self._control, [COMMAND.pack(command)], descriptors, socket.MSG_NOSIGNAL)
        (answer,) = COMMAND.unpack(self._control.recv(COMMAND.size))
        self._start_timeout_s = _ANSWER_TIMEOUT_S
        self._control.settimeout(_ANSWER_TIMEOUT_S)
        return int(answer)

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(self._start_timeout_s)
        with theirs:
            # In Triton's stub, sys.executable is the Python of the stub's packages. The stub ignores PYTHON* variables.
            options = ["-E", "-B"] if sys.flags.ignore_environment else ["-B"]
            command = [sys.executable, *options, str(PROGRAM), str(theirs.fileno()), self._settings]
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"} | ENVIRONMENT
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
