"""A private folder for files that wait for a decision, which no killed console leaves behind for long."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "inference-console-"


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder that only this user can read, until the context ends.

    First the folders of consoles that were killed are removed: a console that runs holds a lock on its own.

    Yields:
        The folder, empty.

    Raises:
        OSError: The folder for temporary files can't be written.
    """
    _remove_abandoned()
    # Other consoles look at visible folders only, so none sees this one before it is locked.
    hidden = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
    folder = hidden.with_name(hidden.name.removeprefix("."))
    descriptor = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        hidden.rename(folder)
        yield folder
    finally:
        for made in (hidden, folder):
            shutil.rmtree(made, ignore_errors=True)
        os.close(descriptor)


def _remove_abandoned() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                if os.fstat(descriptor).st_uid == os.geteuid():
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)
