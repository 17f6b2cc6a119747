"""Requests as bytes, for what no HTTP library would send."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator

TIMEOUT_S = 60.0
HOST = b"Host: 127.0.0.1\r\n"


@contextlib.contextmanager
def connection(port: int) -> Iterator[socket.socket]:
    """Connect to a console."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as opened:
        yield opened


def exchange(port: int, *parts: bytes) -> bytes:
    """Send a request's parts, and return everything that comes until the console closes the connection."""
    with connection(port) as opened:
        send(opened, parts)
        return receive(opened)


def send(opened: socket.socket, parts: Iterable[bytes]) -> int:
    """Send parts until the console refuses more, and return the number of bytes sent."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        for part in parts:
            opened.sendall(part)
            sent += len(part)
    return sent


def receive(opened: socket.socket) -> bytes:
    """Read until the console closes the connection."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while chunk := opened.recv(2**16):
            received += chunk
    return received


def statuses(received: bytes) -> list[int]:
    """List the status codes of the answers in what was received."""
    return [int(line.split()[1]) for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
