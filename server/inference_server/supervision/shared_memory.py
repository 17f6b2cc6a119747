"""Triton's regions in /dev/shm: names that mark them as ours, and removal after their server was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path

from inference_server.errors import ServerError

FOLDER = Path("/dev/shm")  # noqa: S108  (the kernel's folder)
PREFIX = "classify_triton_"
_LOCK = "_lock"
_DELETED = " (deleted)"  # as the kernel marks a file that has no name any more


class SharedMemory:
    """The regions of one server. Later servers remove them if this process was killed.

    Attributes:
        prefix: Prefix of the regions' names.

    Raises:
        ServerError: The folder of shared memory can't be written.
    """

    def __init__(self) -> None:
        self._remove_left_over()
        self.prefix = f"{PREFIX}{secrets.token_hex(4)}"
        self._lock = FOLDER / f"{self.prefix}{_LOCK}"
        try:
            self._descriptor = os.open(self._lock, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        except OSError as error:
            raise ServerError(
                f"{FOLDER} can't be written ({error.strerror}). Triton and its models exchange tensors there. Make it "
                f"writable, or free some space."
            ) from error
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def remove_regions(self) -> None:
        """Remove the regions that a killed server has left; the server must have ended."""
        _remove(self.prefix)

    def close(self) -> None:
        """Remove the regions and the lock."""
        self.remove_regions()
        self._lock.unlink(missing_ok=True)
        os.close(self._descriptor)

    @staticmethod
    def _remove_left_over() -> None:
        # If a server and its watcher were killed, nobody holds their lock.
        for lock in FOLDER.glob(f"{PREFIX}*{_LOCK}"):
            with contextlib.suppress(OSError):  # in use, or another user's
                descriptor = os.open(lock, os.O_RDWR)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(lock.name.removesuffix(_LOCK))
                    lock.unlink(missing_ok=True)
                finally:
                    os.close(descriptor)


def mapped_regions(pid: int) -> set[Path]:
    """List the regions that a process has mapped; empty if it has ended or belongs to somebody else."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    paths = (line[line.find("/") :] for line in lines if f" {FOLDER}/" in line)
    return {Path(path) for path in paths if not path.endswith(_DELETED)}


def _remove(prefix: str) -> None:
    for region in FOLDER.glob(f"{prefix}*"):
        if not region.name.endswith(_LOCK):
            with contextlib.suppress(OSError):
                region.unlink()
