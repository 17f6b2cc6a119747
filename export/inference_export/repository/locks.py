"""Locks between the exports and servers that use one model repository."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def lock_folder(folder: Path, *, blocking: bool = True, shared: bool = False) -> Iterator[None]:
    """Lock a folder until the context or the process ends.

    Args:
        folder: The folder.
        blocking: Wait until the lock is free, instead of failing.
        shared: Allow other shared locks at the same time.

    Raises:
        OSError: The folder does not exist, or the lock is not free and ``blocking`` is off.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if blocking else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(repository: Path) -> Iterator[None]:
    """Keep other processes from changing the version that a repository answers with."""
    with lock_folder(repository.parent):
        yield


@contextlib.contextmanager
def hold_version(repository: Path, version: int) -> Iterator[None]:
    """Keep exports from removing a version that is being served.

    Raises:
        OSError: The version does not exist.
    """
    with lock_folder(repository / "cluster_head" / str(version), shared=True):
        yield


def is_held(repository: Path, version: int) -> bool:
    """Tell whether a version is being served."""
    try:
        with lock_folder(repository / "cluster_head" / str(version), blocking=False):
            return False
    except OSError:
        return True
