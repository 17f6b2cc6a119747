"""A stand-in for the server that answers at once, so that what is left of a request's time is the client's."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator

import click

MAX_BATCH_SIZE = 32
LABEL = b"autistic"
STOP_TIMEOUT_S = 10.0
_BACKLOG = 1024
_BUFFER_BYTES = 2**20
_END_OF_HEAD = b"\r\n\r\n"
_SHOWN_BODY_BYTES = 512  # the request's JSON begins with its inputs, and their shape
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_IMAGES = re.compile(rb'"shape": *\[ *([0-9]+)')


@contextlib.contextmanager
def running_stand_in() -> Iterator[str]:
    """Run a stand-in in a process of its own until the context ends or this process dies; yield its URL."""
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as listener:
        descriptor = listener.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.stand_in", "--descriptor", str(descriptor)],
            stdin=subprocess.PIPE,
            pass_fds=[descriptor],
        )
        port = listener.getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.communicate(timeout=STOP_TIMEOUT_S)  # closes its standard input


@click.command()
@click.option("--descriptor", type=int, required=True, help="File descriptor of a listening socket.")
def main(descriptor: int) -> None:
    """Answer every connection to a socket, until standard input ends."""
    listener = socket.socket(fileno=descriptor)
    threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    sys.stdin.read()


def _accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    with connection, contextlib.suppress(ConnectionError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (images := _read_request(connection, buffer)) is not None:
            connection.sendall(answer(images) if images else configuration())


def _read_request(connection: socket.socket, buffer: memoryview) -> int | None:
    """Read a request; return its number of images, 0 if it has no body, or None if the connection has ended."""
    received, head, wanted = 0, b"", _BUFFER_BYTES
    while received < wanted:
        count = connection.recv_into(buffer[received:])
        if not count:
            return None
        received += count
        if not head:
            head, separator, _ = bytes(buffer[:received]).partition(_END_OF_HEAD)
            if not separator:
                head = b""
                continue
            length = _CONTENT_LENGTH.search(head)
            body_bytes = int(length[1]) if length else 0
            body = len(head) + len(separator)
            wanted = body + min(body_bytes, _SHOWN_BODY_BYTES)
    shape = _IMAGES.search(buffer[body : body + _SHOWN_BODY_BYTES])
    images = int(shape[1]) if shape else 0
    left = body + body_bytes - received
    while left:  # the files, over each other
        count = connection.recv_into(buffer[: min(left, _BUFFER_BYTES)])
        if not count:
            return None
        left -= count
    return images


@functools.cache
def answer(images: int) -> bytes:
    """Make the answer to a request for the outputs ``ERROR``, ``LABEL`` and ``PROBABILITY`` of so many images."""
    tensors = {
        "ERROR": ("BYTES", struct.pack("<I", 0) * images),
        "LABEL": ("BYTES", (struct.pack("<I", len(LABEL)) + LABEL) * images),
        "PROBABILITY": ("FP32", struct.pack("<f", 0.75) * images),
    }
    outputs = [
        {"name": name, "datatype": datatype, "shape": [images, 1], "parameters": {"binary_data_size": len(values)}}
        for name, (datatype, values) in tensors.items()
    ]
    content = json.dumps({"model_name": "ensemble", "model_version": "1", "outputs": outputs}).encode()
    body = content + b"".join(values for _, values in tensors.values())
    return _response(body, f"application/octet-stream\r\nInference-Header-Content-Length: {len(content)}")


@functools.cache
def configuration() -> bytes:
    """Make the answer to a request for the ensemble's configuration."""
    config = {"name": "ensemble", "max_batch_size": MAX_BATCH_SIZE, "output": []}
    return _response(json.dumps(config).encode(), "application/json")


def _response(body: bytes, content_type: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


if __name__ == "__main__":
    main()
