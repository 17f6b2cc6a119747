"""Servers that refuse, close, trickle, overload or talk nonsense, which a real Triton does not do on demand.

The tests of Triton's own answers run against a real Triton, in test_served.py.
"""

import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

CERTIFICATE = Path(__file__).with_name("self_signed.pem")


@dataclass
class Request:
    """A client's request. Header names are in small letters; only inference requests have ``images``."""

    method: str
    path: str
    headers: dict[str, str]
    connection: object
    images: list[bytes] = field(default_factory=list)
    body: dict = field(default_factory=dict)


@dataclass
class Reply:
    """The server's answer; ``hang_up`` closes the connection instead."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False


def refusal(status: int, message: str) -> Reply:
    """Make an error as Triton words it."""
    return Reply(status, json.dumps({"error": message}).encode())


def config(max_batch_size: int = 4, *, outputs: tuple[str, ...] = ()) -> Reply:
    """Make the answer to a request for the ensemble's configuration."""
    values = {"name": "ensemble", "max_batch_size": max_batch_size, "output": [{"name": name} for name in outputs]}
    return Reply(body=json.dumps(values).encode())


def echo(request: Request, *, neighbors: tuple[str, ...] = ("", "")) -> Reply:
    """Answer an inference request: each image's label is its own text, and an image of ``bad...`` is undecodable."""
    texts = [image.decode() for image in request.images]
    bad = [text.startswith("bad") for text in texts]
    if all(bad):
        reasons = json.dumps([f"{text} is no image" for text in texts])
        return refusal(400, f"in ensemble 'ensemble', Failed: no decodable image: {reasons}")
    rows = {
        "ERROR": (
            "BYTES",
            [[f"{text} is no image" if bad_one else ""] for text, bad_one in zip(texts, bad, strict=True)],
        ),
        "LABEL": ("BYTES", [["" if bad_one else text] for text, bad_one in zip(texts, bad, strict=True)]),
        "PROBABILITY": ("FP32", [[0.0 if bad_one else 0.5] for bad_one in bad]),
        "CLASSES": ("BYTES", [["a", "ä"]] * len(texts)),
        "SCORES": ("FP32", [[0.25, 0.5]] * len(texts)),
        "MATCHES": ("INT32", [[1, 3]] * len(texts)),
        "NEIGHBOR": ("BYTES", [list(neighbors)] * len(texts)),
        "NEIGHBOR_SIMILARITY": ("FP32", [[0.75] * len(neighbors)] * len(texts)),
        "VERSION": ("INT64", [[3]] * len(texts)),
        "THRESHOLD": ("FP32", [[0.8]] * len(texts)),
        "NOTE": ("BYTES", [["it is turned" if text.startswith("turned") else ""] for text in texts]),
    }
    outputs, tensors = [], []
    for name in (output["name"] for output in request.body["outputs"]):
        datatype, values = rows[name]
        if datatype == "BYTES":
            encoded = [text.encode() for row in values for text in row]
            tensor = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
        else:
            tensor = np.array(values, {"FP32": "<f4", "INT32": "<i4", "INT64": "<i8"}[datatype]).tobytes()
        outputs.append(
            {
                "name": name,
                "datatype": datatype,
                "shape": [len(values), len(values[0])],
                "parameters": {"binary_data_size": len(tensor)},
            }
        )
        tensors.append(tensor)
    header = json.dumps({"model_name": "ensemble", "outputs": outputs}).encode()
    return Reply(
        body=header + b"".join(tensors),
        headers={"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"},
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # With the default of 5, the kernel drops connections that come at the same time, and retries only after seconds.
    request_queue_size = 1024


class StandIn:
    """An HTTP server whose answers a test chooses.

    Args:
        answer: Answers each inference request, in the connection's thread.
        configuration: Answers a request for the ensemble's configuration.
        tls: Whether to speak TLS, with a certificate that nobody trusts.

    Attributes:
        resets: How many of the next inference requests lose their connection before their body is read.
    """

    def __init__(
        self,
        answer: Callable[[Request], Reply] = echo,
        *,
        configuration: Callable[[Request], Reply] = lambda request: config(),
        tls: bool = False,
    ) -> None:
        self.answer = answer
        self.configuration = configuration
        self.requests: list[Request] = []
        self.resets = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._server.block_on_close = False
        self._server.handle_error = lambda *_: None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host_and_port = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{'https' if tls else 'http'}://{self.host_and_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def inferences(self) -> list[Request]:
        return [request for request in self.requests if request.path.endswith("/infer")]

    def __enter__(self) -> "StandIn":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(stand_in) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - self is the handler's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._answer(stand_in.configuration)

            def do_POST(self) -> None:
                if stand_in.resets:
                    stand_in.resets -= 1
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    return
                self._answer(stand_in.answer)

            def _answer(self, answer: Callable[[Request], Reply]) -> None:
                request = self._read()
                with stand_in._lock:
                    stand_in.requests.append(request)
                reply = answer(request)
                if reply.hang_up:
                    self.close_connection = True
                    return
                self.send_response(reply.status)
                for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def _read(self) -> Request:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, headers, self.connection)
                if self.command == "POST":
                    json_bytes = int(self.headers["Inference-Header-Content-Length"])
                    request.body = json.loads(body[:json_bytes])
                    rest = body[json_bytes:]
                    while rest:
                        (size,) = struct.unpack_from("<I", rest)
                        request.images.append(rest[4 : 4 + size])
                        rest = rest[4 + size :]
                return request

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@contextlib.contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Run a server that hands each connection to ``talk``, and yield its ``http://host:port``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def accept() -> None:
            while not over.is_set():
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                talk(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join()


def unused_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
