"""Files that strangers name: reading from a pipe would wait for ever, and a device, or a file with holes, never end."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from io import BufferedReader
from pathlib import Path

from inference_export.errors import ChangedError

UNREADABLE = "unreadable"  # in place of the hash of a file that could not be read


def open_regular_file(path: Path, max_bytes: int) -> BufferedReader:
    """Open a file for reading, its length looked up before anything is read.

    Args:
        path: The file.
        max_bytes: Longest file that is opened.

    Raises:
        OSError: It can't be opened, is longer, or is a folder, a pipe, a socket or a device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)  # a pipe opens at once
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is a folder, pipe, socket or device, no file", str(path))
        if status.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"has {status.st_size} bytes, and may have {max_bytes}", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular_file(path: Path, max_bytes: int) -> bytes:
    """Read a file whole.

    Args:
        path: The file.
        max_bytes: Longest file that is read.

    Raises:
        OSError: It can't be read, is longer, or is a folder, a pipe, a socket or a device.
    """
    with open_regular_file(path, max_bytes) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:  # it has grown
        raise OSError(errno.EFBIG, f"has more than {max_bytes} bytes", str(path))
    return content


def hash_file(path: Path, max_bytes: int) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal, without holding it in memory.

    Args:
        path: The file.
        max_bytes: Longest file that is read.

    Raises:
        OSError: It can't be read, is longer, or is a folder, a pipe, a socket or a device.
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
    """Reads files, and remembers the hash of the very bytes that it handed out.

    A file may be replaced at any moment: hashed later, it would be another than the one that was used.
    """

    def __init__(self) -> None:
        self._hashes: dict[Path, str] = {}

    def read(self, path: Path, max_bytes: int) -> bytes:
        """Read a file whole.

        Args:
            path: The file.
            max_bytes: Longest file that is read.

        Raises:
            OSError: It can't be read, is longer, or is a folder, a pipe, a socket or a device.
            ChangedError: It was read before, and is another now.
        """
        try:
            content = read_regular_file(path, max_bytes)
        except OSError:
            self._remember(path, UNREADABLE)
            raise
        self._remember(path, hashlib.sha256(content).hexdigest())
        return content

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of what was read from a file, in hexadecimal; ``UNREADABLE`` if it could not be.

        Raises:
            KeyError: It was never read.
        """
        return self._hashes[path]

    def _remember(self, path: Path, found: str) -> None:
        if self._hashes.setdefault(path, found) != found:
            raise ChangedError(
                f"{path} changed while it was being exported. Export again when nothing is written there any more.",
                path,
            )
