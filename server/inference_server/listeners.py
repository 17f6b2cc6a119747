"""Which process listens on a port of this machine, as far as Linux tells this user."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_LISTENING = "0A"


def listener(port: int) -> str | None:
    """Name the process that listens on a TCP port.

    Returns:
        ``name (process id)``; None if no process listens there, or it is another user's, or this is not Linux.
    """
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not sockets:
        return None
    for process in _PROC.glob("[0-9]*"):
        with suppress(OSError):  # another user's process, or one that has just ended
            for descriptor in (process / "fd").iterdir():
                with suppress(OSError):
                    if str(descriptor.readlink()) in sockets:
                        return f"{(process / 'comm').read_text('utf-8', 'replace').strip()} (process {process.name})"
    return None


def _listening_inodes(port: int) -> list[str]:
    inodes = []
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in (_PROC / "net" / table).read_text("ascii").splitlines()[1:]:
                # number, local address, remote address, state, queues, timer, retransmits, user, timeout, inode
                fields = re.split(r"\s+", line.strip())
                if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.append(fields[9])
    return inodes
