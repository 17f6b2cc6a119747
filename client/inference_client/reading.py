"""How much of an answer is read, and until when, whatever a server sends."""

import re
from collections.abc import Callable
from typing import Any

from tritonclient.http import InferenceServerClient

MAX_HEADER_BYTES = 64 * 2**10
# Of an answer without tensors: an error, which may have a reason for each image, or a model's configuration.
MAX_JSON_BYTES = 4 * 2**20
# Of an answer with tensors: 2 MiB for each of 32 images.
MAX_ANSWER_BYTES = 64 * 2**20
# geventhttpclient makes room for as many bytes as a server announces.
MOST_BYTES_AT_ONCE = 2**16

TENSORS_HEADER = "Inference-Header-Content-Length"
_SIZE = re.compile(r"[0-9]{1,9}")


class BoundedReads:
    """The reads of one tritonclient at a time, which stop when an answer is too large or a request must end.

    gevent runs its event loop, and with it deadlines and interruptions, only while a read waits. A server that always
    has more to send would keep a thread from it for ever.

    Args:
        check: Called after every read; raises if the request must end.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._read_bytes = 0
        self._most_bytes = 0
        self._part = ""
        self.socket: Any = None  # the client's, also while a request holds it

    def bound(self, client: InferenceServerClient) -> None:
        """Bound the reads of a client that has not connected yet."""
        stub: Any = getattr(client, "_client_stub", None)
        sockets: Any = getattr(stub, "_connection_pool", None)
        connect, send = getattr(sockets, "_connect_socket", None), getattr(stub, "request", None)
        if connect is None or send is None:
            return

        def connect_bounded(connection: Any, address: Any) -> "_BoundedSocket":
            self.socket = bounded = _BoundedSocket(connect(connection, address), self._count)
            return bounded

        def send_bounded(*arguments: Any, **options: Any) -> Any:
            self._begin("headers", MAX_HEADER_BYTES)
            response = send(*arguments, **options)
            self._begin("body", _most_body_bytes(response))
            return response

        sockets._connect_socket = connect_bounded
        stub.request = send_bounded

    def _begin(self, part: str, most_bytes: int) -> None:
        self._part, self._read_bytes, self._most_bytes = part, 0, most_bytes

    def _count(self, read_bytes: int) -> None:
        self._read_bytes += read_bytes
        if self._read_bytes > self._most_bytes:
            raise ValueError(f"the answer's {self._part} took more than {self._most_bytes} bytes")
        self._check()


class _BoundedSocket:
    """A connected socket that counts what is read."""

    def __init__(self, connected: Any, count: Callable[[int], None]) -> None:
        self._connected = connected
        self._count = count

    def recv(self, most_bytes: int) -> bytes:
        read: bytes = self._connected.recv(min(most_bytes, MOST_BYTES_AT_ONCE))
        self._count(len(read))
        return read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connected, name)


def _most_body_bytes(response: Any) -> int:
    encoding = response.get("Content-Encoding")
    if encoding is not None:
        raise ValueError(f"the answer is compressed ({encoding!r:.40}), which was not asked for")
    json_bytes = response.get(TENSORS_HEADER)
    if json_bytes is None:
        return MAX_JSON_BYTES
    # A list if the server sent several.
    if not isinstance(json_bytes, str) or not _SIZE.fullmatch(json_bytes) or int(json_bytes) > MAX_JSON_BYTES:
        raise ValueError(f"{TENSORS_HEADER} is {json_bytes!r:.40}, not a number up to {MAX_JSON_BYTES}")
    return MAX_ANSWER_BYTES
