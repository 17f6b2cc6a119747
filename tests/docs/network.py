"""A network of its own for a page's code: its ports are free there, whatever listens on this machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

# A user who is not root makes the network as root of a user namespace.
_NAMESPACES = ["--net"] if os.geteuid() == 0 else ["--user", "--net"]
_MAKE = ["unshare", *_NAMESPACES, *(["--map-root-user"] if "--user" in _NAMESPACES else [])]
_ENTER = ["nsenter", *_NAMESPACES, *(["--preserve-credentials"] if "--user" in _NAMESPACES else [])]
# The loopback interface of a new network is down: SIOCSIFFLAGS with IFF_UP. The network lasts until this ends.
_HOLD = """
import fcntl, socket, struct, sys
with socket.socket() as made:
    fcntl.ioctl(made, 0x8914, struct.pack("16sh14x", b"lo", 1))
print("up", flush=True)
sys.stdin.read()
"""


@cache
def can_isolate() -> bool:
    """Say whether this system lets us make networks; many containers do not."""
    try:
        return subprocess.run([*_MAKE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def own_network() -> Iterator[list[str]]:
    """Make a network that has a loopback interface and nothing else.

    Yields:
        What to put before a command so that it runs in this network.
    """
    command = [*_MAKE, sys.executable, "-c", _HOLD]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        yield [*_ENTER, "--target", str(holder.pid), "--"]
        holder.terminate()
