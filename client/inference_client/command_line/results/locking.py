"""Keeping two runs from writing one results file: what one of them adds would be lost when the other replaces it."""

import errno
import os
import sys
from typing import IO

if sys.platform != "win32":
    import fcntl

_IN_USE = frozenset({errno.EWOULDBLOCK, errno.EACCES})


class InUseError(Exception):
    """Another program writes the file; the message says so, without the file's name."""


def lock(file: IO[bytes]) -> None:
    """Lock an open file for as long as it is open, where its file system can.

    Raises:
        InUseError: Another program has locked it, or has put another file in its place.
    """
    if sys.platform == "win32":  # there, an open file can't be replaced
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _IN_USE:
            raise InUseError(
                "is being written by another run of classify. Wait until it ends, or name another file with -o."
            ) from error
    if not os.path.samestat(os.fstat(file.fileno()), os.stat(file.name)):  # noqa: PTH116  (a name, no Path)
        raise InUseError("was replaced by another run of classify. Give the same command again.")
