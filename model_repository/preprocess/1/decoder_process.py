"""Forks the decoders: processes that can be killed if an image takes too much time or memory.

``forking.py`` starts this program as ``python decoder_process.py DESCRIPTOR SETTINGS``. The program imports the
decoders' packages once, so a fork takes milliseconds and a killed decoder is replaced at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
from forking import COMMAND, DECODED, EXPENSIVE, FORK, OUT_OF_MEMORY, REFUSED, REPLY, TASK
from geometry import Geometry

# Imports the plugins too, so that no decoder has to import them for its first file. heif.py imports two more.
from PIL import GifImagePlugin, Image, MpoImagePlugin, PngImagePlugin, WebPImagePlugin  # noqa: F401
from preprocessing import ExpensiveImageError, Limits, UndecodableImageError, decode

KEPT_BLOCKS = 4  # of Pillow, at most 16 MiB each: for an image, the intermediate one of resizing, and the result
FIRST_TO_BE_KILLED = "500"  # from -1000 to 1000, when the system is out of memory
THREAD_STACK_BYTES = 2**21
_PR_SET_PDEATHSIG = 1
_THREAD_ATTRIBUTES_BYTES = 128  # more than sizeof(pthread_attr_t)
_OUT_OF_MEMORY = REPLY.pack(OUT_OF_MEMORY, 0)


def main() -> None:
    """Fork and kill decoders on commands from the control socket, until its other end is closed."""
    control = socket.socket(fileno=int(sys.argv[1]))
    settings = json.loads(sys.argv[2])
    for number in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C comes here too, but the parent decides
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_BE_KILLED, encoding="ascii")
    _limit_thread_stacks()
    # Pillow normally gives memory back after each image; getting it again page by page takes half of the decoding time.
    Image.core.set_blocks_max(KEPT_BLOCKS)  # type: ignore[attr-defined]
    parent = os.getpid()
    decoders: set[int] = set()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, COMMAND.size, 2)
        if not message:
            for decoder in decoders:
                _end(decoder)
            return
        (command,) = COMMAND.unpack(message)
        if command == FORK:
            try:
                command = os.fork()
            except OSError as error:
                command = -int(error.errno or errno.EAGAIN)
            if command == 0:
                control.close()
                _end_with(parent)
                _decode_files(*descriptors, **settings)
                return
            if command > 0:
                decoders.add(command)
            for descriptor in descriptors:
                os.close(descriptor)
        elif command in decoders:
            decoders.remove(command)
            _end(command)
        control.send(COMMAND.pack(command))


def _limit_thread_stacks() -> None:
    """Give libraries' threads small stacks: by default they are as large as tritonserver's, which needs a gigabyte."""
    library = ctypes.CDLL(None)
    attributes = ctypes.create_string_buffer(_THREAD_ATTRIBUTES_BYTES)
    library.pthread_attr_init(attributes)
    library.pthread_attr_setstacksize(attributes, ctypes.c_size_t(THREAD_STACK_BYTES))
    with contextlib.suppress(AttributeError):  # a C library without it
        library.pthread_setattr_default_np(attributes)


def _end(decoder: int) -> None:
    os.kill(decoder, signal.SIGKILL)
    os.waitpid(decoder, 0)


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _decode_files(
    tasks_descriptor: int, pixels_descriptor: int, *, size: int, reduced: bool, geometry: list[Any], limits: list[Any]
) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries print complaints about files
    tasks = socket.socket(fileno=tasks_descriptor)
    pixels = np.frombuffer(mmap.mmap(pixels_descriptor, size * size * 3), np.uint8).reshape(size, size, 3)
    chosen_geometry, chosen_limits, memory = Geometry(*geometry), Limits(*limits), _MemoryLimit()
    while header := tasks.recv(TASK.size, socket.MSG_WAITALL):
        length, memory_bytes = TASK.unpack(header)
        data = tasks.recv(length, socket.MSG_WAITALL) if length else b""
        try:
            memory.limit(memory_bytes)
            decoded = decode(
                data,
                size,
                reduced=reduced,
                geometry=chosen_geometry,
                limits=chosen_limits,
                budget_bytes=memory_bytes,
            )
            pixels[:] = decoded.pixels
            reply = REPLY.pack(DECODED, 0) + decoded.note.encode()
        except UndecodableImageError as error:
            reply = REPLY.pack(REFUSED, 0) + error.reason.pack().encode()
        except ExpensiveImageError as error:
            reply = REPLY.pack(EXPENSIVE, error.memory_bytes)
        except MemoryError:
            reply = _OUT_OF_MEMORY
        finally:
            memory.lift()
            data = b""
        tasks.sendall(reply)


class _MemoryLimit:
    """Limits how much more memory this process may take."""

    def __init__(self) -> None:
        _, self._hard = resource.getrlimit(resource.RLIMIT_AS)
        self._usage = os.open("/proc/self/statm", os.O_RDONLY)

    def limit(self, most_bytes: int) -> None:
        """Admit so many more bytes."""
        pages = int(os.pread(self._usage, 100, 0).split(maxsplit=1)[0])
        wanted = pages * resource.getpagesize() + most_bytes
        self._set(wanted if self._hard == resource.RLIM_INFINITY else min(wanted, self._hard))

    def lift(self) -> None:
        """Admit as much as the system does."""
        self._set(self._hard)

    def _set(self, limit: int) -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, self._hard))


if __name__ == "__main__":
    main()
