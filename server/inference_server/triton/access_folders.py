"""The folders in which servers keep the keys to administer them; only those that nobody else can write are trusted.

A server writes into the first folder. A command looks into all of them: cron, ssh and systemd give it other variables
than the session that the server was started in.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from inference_server.errors import ServerError

_NAME = "inference-server"


def access_folders() -> list[Path]:
    """List the folders in which a server of this user may keep its key; the first is where a new one keeps it."""
    caches = [os.environ.get("XDG_CACHE_HOME")]
    with contextlib.suppress(RuntimeError):  # a user without a home
        caches.append(str(Path.home() / ".cache"))
    parents = [
        os.environ.get("XDG_RUNTIME_DIR") or next(filter(None, caches), None),
        f"/run/user/{os.geteuid()}",  # XDG_RUNTIME_DIR of a session
        "/run",  # of a systemd unit with RuntimeDirectory=inference-server
        *caches,
    ]
    return list(dict.fromkeys(Path(parent) / _NAME for parent in parents if parent))


def make_folder(folder: Path) -> None:
    """Make a folder that only this user can enter.

    Raises:
        OSError: The folder can't be made.
        ServerError: It exists, and others can write into it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_trusted(folder):
        raise ServerError(
            f"{folder} belongs to another user, or others can write into it. It must hold the key to administer this "
            f"server. Remove it, or set XDG_RUNTIME_DIR to a folder of your own."
        )


def is_trusted(folder: Path) -> bool:
    """Tell whether a folder exists, belongs to this user, and can be written by nobody else."""
    try:
        status = folder.stat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )
