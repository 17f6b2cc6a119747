"""What a folder of base images looks like from outside, to see whether it has changed without reading an image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Snapshot(NamedTuple):
    """The entries of a folder of base images, in a form that takes no memory.

    Two snapshots of one process are equal if the folder has not changed between them. Python's hashes differ between
    processes, so a snapshot means nothing to another process.

    Attributes:
        entries: Number of entries, and of errors while listing them.
        digest: A sum over the entries, so that their order does not matter: a folder lists them in any order.
    """

    entries: int
    digest: int


_MODULUS = 2**64


def take_snapshot(folder: Path) -> Snapshot:
    """Take a snapshot of a folder of base images.

    The change time shows a file that was rewritten in place and given its old time back, as by ``cp -p``. Inode numbers
    are left out: file systems in user space and of Windows servers may give the same file a new one. Hidden entries are
    no base images, and left out.

    Args:
        folder: The base data: a folder for each class, with the class's images inside. It may be missing or unreadable.

    Returns:
        The snapshot. A folder that can't be listed has one too.
    """
    entries = digest = 0
    for entry in _entries(str(folder)):
        entries += 1
        digest += hash(entry)
    return Snapshot(entries=entries, digest=digest % _MODULUS)


def _entries(folder: str) -> Iterator[tuple[str | int, ...]]:
    """Yield a value for each visible entry of a folder and of the folders in it, and for each error."""
    class_folders = []
    try:
        with os.scandir(folder) as listed:
            for entry in listed:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    class_folders.append(entry.name)
                else:
                    yield "beside", entry.name, _is_there(entry)
    except OSError as error:
        yield "folder", error.errno or 0
    for name in class_folders:
        yield from _images(name, os.path.join(folder, name))  # noqa: PTH118  (a Path for each entry takes long)


def _images(class_name: str, folder: str) -> Iterator[tuple[str | int, ...]]:
    yield "class", class_name
    try:
        with os.scandir(folder) as listed:
            for entry in listed:
                if not entry.name.startswith("."):
                    yield class_name, entry.name, *_state(entry)
    except OSError as error:
        yield "class", class_name, error.errno or 0


def _state(entry: os.DirEntry[str]) -> tuple[int, ...]:
    try:
        if entry.is_dir():  # whatever it holds, it is no image
            return ()
        status = entry.stat()  # of a link's target
    except OSError as error:
        return (error.errno or 0,)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_there(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is no broken link, which might have been a class."""
    try:
        entry.stat()
    except OSError:
        return False
    return True
