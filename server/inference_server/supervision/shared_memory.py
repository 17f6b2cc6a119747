"""Triton's regions in /dev/shm: named so that they are known as ours, and removed when their server was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path

from inference_server.errors import ServerError

FOLDER = Path("/dev/shm")  # noqa: S108  (where the kernel has it)
PREFIX = "classify_triton_"
_LOCK = "_lock"


class SharedMemory:
    """The regions of one server, which no other server takes for left over while this object lives.

    Raises:
        ServerError: There is no shared memory.
    """

    def __init__(self) -> None:
        self._remove_left_over()
        self.prefix = f"{PREFIX}{secrets.token_hex(4)}"
        self._lock = FOLDER / f"{self.prefix}{_LOCK}"
        try:
            self._descriptor = os.open(self._lock, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        except OSError as error:
            raise ServerError(
                f"{FOLDER} can't be written ({error.strerror}), in which Triton and its models exchange tensors."
            ) from error
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def remove_regions(self) -> list[str]:
        """Remove what a server that was killed has left; it must have ended. Returns the names."""
        return _remove(self.prefix)

    def close(self) -> None:
        """Remove everything."""
        self.remove_regions()
        self._lock.unlink(missing_ok=True)
        os.close(self._descriptor)

    @staticmethod
    def _remove_left_over() -> None:
        # Of servers that were killed together with whoever watched over them: nobody holds their lock.
        for lock in FOLDER.glob(f"{PREFIX}*{_LOCK}"):
            with contextlib.suppress(OSError):  # another user's
                descriptor = os.open(lock, os.O_RDWR)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(lock.name.removesuffix(_LOCK))
                    lock.unlink(missing_ok=True)
                finally:
                    os.close(descriptor)


def _remove(prefix: str) -> list[str]:
    removed = []
    for region in FOLDER.glob(f"{prefix}*"):
        if not region.name.endswith(_LOCK):
            with contextlib.suppress(OSError):
                region.unlink()
                removed.append(region.name)
    return removed
