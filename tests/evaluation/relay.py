"""A relay between an evaluation and its server, which records every request and refuses some."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

UPSTREAM_TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True)
class Relay:
    """A running relay.

    Attributes:
        url: The relay's address.
        requests: Path and client id of each request, in the order of arrival.
    """

    url: str
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def paths(self, end: str) -> list[str]:
        return [path for path, _ in self.requests if path.endswith(end)]


@contextmanager
def relaying(server_url: str, *, refused: str | None = None) -> Iterator[Relay]:
    """Relay to a server, and answer 404 to paths that contain ``refused``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._relay()

        def do_POST(self) -> None:
            self._relay()

        def log_message(self, *_: object) -> None:
            pass

        def _relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            relay.requests.append((self.path, self.headers.get("X-Client-Id")))
            if refused is not None and refused in self.path:
                self._answer(404, {"Content-Type": "application/json"}, b'{"error": "not for you"}')
                return
            upstream = HTTPConnection(urlsplit(server_url).netloc, timeout=UPSTREAM_TIMEOUT_S)
            try:
                upstream.request(self.command, self.path, body, dict(self.headers))
                response: HTTPResponse = upstream.getresponse()
                self._answer(response.status, dict(response.getheaders()), response.read())
            finally:
                upstream.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in {"content-length", "transfer-encoding"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        relay = Relay(url=f"http://127.0.0.1:{listener.server_port}")
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        try:
            yield relay
        finally:
            listener.shutdown()
            thread.join()
