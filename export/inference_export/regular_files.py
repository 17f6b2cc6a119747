"""Reading regular files only: a pipe could block for ever, and a device or a sparse file may have no end."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path

from inference_export.errors import ChangedError

UNREADABLE = "unreadable"  # stands for the hash of an unreadable file


def open_regular_file(path: Path, max_bytes: int) -> BufferedReader:
    """Open a file for reading, after checking its kind and length.

    Args:
        path: The file.
        max_bytes: Longest file that is opened.

    Raises:
        OSError: The file can't be opened, is longer, or is a folder, a pipe, a socket or a device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)  # a pipe opens at once
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is a folder, pipe, socket or device, and must be a file", str(path))
        if status.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"has {status.st_size} bytes, and may have {max_bytes}", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Read a whole file.

    Args:
        path: The file.
        max_bytes: Longest file that is read.

    Raises:
        OSError: The file can't be read, is longer, or is a folder, a pipe, a socket or a device.
    """
    with open_regular_file(path, max_bytes) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:  # the file has grown since it was opened
        raise OSError(errno.EFBIG, f"has more than {max_bytes} bytes", str(path))
    return content


def hash_file(path: Path, max_bytes: int) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal, without holding it in memory.

    Args:
        path: The file.
        max_bytes: Longest file that is read.

    Raises:
        OSError: The file can't be read, is longer, or is a folder, a pipe, a socket or a device.
    """
    with open_regular_file(path, max_bytes) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_if_readable(path: Path, max_bytes: int) -> str:
    """Return what ``hash_file`` returns, or ``UNREADABLE`` for a file that it refuses."""
    try:
        return hash_file(path, max_bytes)
    except OSError:
        return UNREADABLE


class FileReader:
    """Reads files, and remembers the hash of the bytes that it returned.

    A file may be replaced at any moment, so a hash computed later could be of other bytes.
    """

    def __init__(self) -> None:
        self._hashes: dict[Path, str] = {}

    def read(self, path: Path, max_bytes: int) -> bytes:
        """Read a whole file.

        Args:
            path: The file.
            max_bytes: Longest file that is read.

        Raises:
            OSError: The file can't be read, is longer, or is a folder, a pipe, a socket or a device.
            ChangedError: The file has changed since it was read.
        """
        try:
            content = read_regular_file(path, max_bytes)
        except OSError:
            self._remember(path, UNREADABLE)
            raise
        self._remember(path, hashlib.sha256(content).hexdigest())
        return content

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of the bytes that were read from a file, in hexadecimal.

        Args:
            path: The file.

        Returns:
            The hash; ``UNREADABLE`` if reading failed.

        Raises:
            KeyError: Nobody has tried to read the file.
        """
        return self._hashes[path]

    def _remember(self, path: Path, sha256: str) -> None:
        if self._hashes.setdefault(path, sha256) != sha256:
            raise ChangedError(
                f"{path} changed while it was being exported. Export again when nothing writes there any more.",
                path,
            )
