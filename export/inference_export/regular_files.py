"""Files that strangers name: reading from a pipe would wait for ever, and from a device never end."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path


def read_regular_file(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        OSError: It can't be read, or is a pipe, a socket or a device.
    """
    require_regular(path)
    return path.read_bytes()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal.

    Raises:
        OSError: It can't be read, or is a pipe, a socket or a device.
    """
    require_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_regular(path: Path) -> None:
    """Refuse what can't be read like a file; whether it is there is for the reader to say.

    Raises:
        OSError: It is a folder, a pipe, a socket or a device.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is a folder, pipe, socket or device, no file", str(path))
