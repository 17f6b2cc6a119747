"""A real ``inference-console``, and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference_server.triton.process import free_ports, start_child, stop

START_TIMEOUT_S = 60.0
TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the console answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, kw_only=True)
class RunningConsole:
    """A console that is ready."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        json: Any = None,
        files: Mapping[str, bytes] | None = None,
        fields: Mapping[str, str | Sequence[str]] | None = None,
    ) -> Answer:
        """Send one request. ``json``, or ``files`` and ``fields`` of a form, make the body and its type."""
        sent = {**self.headers, **(headers or {})}
        if json is not None:
            body = _json(json)
            sent.setdefault("Content-Type", "application/json")
        if files is not None or fields is not None:
            body = form(files or {}, fields or {})
            sent["Content-Type"] = f"multipart/form-data; boundary={BOUNDARY}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(
                status=answer.status,
                headers={name.lower(): value for name, value in answer.getheaders()},
                body=answer.read(),
            )


BOUNDARY = "a-boundary-that-no-file-holds"


def form(files: Mapping[str, bytes], fields: Mapping[str, str | Sequence[str]]) -> bytes:
    """Write a form: ``files`` by file name, all in the field ``files``. A field may have several values."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, values in fields.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    parts += [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, data in files.items()
    ]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


@contextlib.contextmanager
def running_console(
    log: Path,
    *arguments: str,
    headers: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[RunningConsole]:
    """Run ``inference-console`` on a free port of loopback.

    Args:
        log: File for its output.
        arguments: Its arguments, without ``--port``.
        headers: Headers of every request to it.
        environment: More environment variables.
    """
    (port,) = free_ports(1)
    with log.open("wb") as output:
        process = start_child(
            [sys.executable, "-m", "inference_console", "--port", str(port), *arguments],
            environment={**os.environ, **(environment or {})},
            output=output,
        )
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while b"console at" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.05)
        yield RunningConsole(port=port, process=process, log=log, headers=dict(headers or {}))
    finally:
        stop(process)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
