"""Requests that our client never sends, each followed by a valid request that must be answered as usual."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from inference_client import Classify
from tests.chaos.load import Expected, is_right
from tests.chaos.tally import Tally

INFER, GENERATE = "/v2/models/ensemble/infer", "/v2/models/ensemble/generate"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
CLIENT_ERRORS = frozenset(range(400, 500))
# Triton's own status for JSON that it can't parse; docs/explanation/security.md lists the cases.
UNPARSABLE = CLIENT_ERRORS | {500}
CLOSED = frozenset({0})  # a connection closed without an answer
TIMEOUT_S = 60.0
SLOW_CONNECTIONS = 200


@dataclass(frozen=True, kw_only=True)
class Hostile:
    """A request and its admitted answers.

    Attributes:
        name: What is wrong with it.
        method, path, headers, body: The request.
        admitted: Statuses that count as a clear refusal.
    """

    name: str
    method: str = "POST"
    path: str = INFER
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))
    body: bytes = b""
    admitted: frozenset[int] = CLIENT_ERRORS


def hostile_requests(image: Path, max_batch_size: int) -> Iterator[Hostile]:
    """Make the requests."""
    text = base64.b64encode(image.read_bytes()).decode()

    def infer(data: Any = None, *, shape: Any = None, parameters: Any = None, **tensor: Any) -> bytes:
        data = [text] if data is None else data
        inputs = [{"name": "IMAGE", "shape": shape or [len(data), 1], "datatype": "BYTES", "data": data, **tensor}]
        return json.dumps({"inputs": inputs, **({} if parameters is None else {"parameters": parameters})}).encode()

    thresholds: dict[str, Any] = {"nan": "nan", "1e9": 1e9, "text": "high", "true": True, "none": "", "inf": "-inf"}
    for name, value in thresholds.items():
        yield Hostile(name=f"threshold {name}", body=infer(parameters={"sim_thres": value}))
    unparsable: dict[str, Any] = {"list": [1], "object": {}, "null": None}
    for name, value in unparsable.items():
        yield Hostile(name=f"threshold {name}", body=infer(parameters={"sim_thres": value}), admitted=UNPARSABLE)
    yield Hostile(name="reserved parameter", body=infer(parameters={"triton_x": 1}))
    yield Hostile(name="wrong type", body=infer([1.5], datatype="FP32"))
    yield Hostile(name="wrong name", body=infer(name="PICTURE"))
    yield Hostile(name="wrong shape", body=infer(shape=[1, 2]))
    yield Hostile(name="enormous shape", body=infer(shape=[2**40, 2**30]))
    yield Hostile(name="negative shape", body=infer(shape=[-1, 1]), admitted=UNPARSABLE)
    yield Hostile(name="no dimension", body=infer(shape=[]), admitted=CLIENT_ERRORS | {200})
    yield Hostile(name="batch over the limit", body=infer([text] * (max_batch_size + 1)))
    yield Hostile(name="number for an image", body=infer([7]), admitted=UNPARSABLE)
    yield Hostile(name="no json", body=b"not json", admitted=UNPARSABLE)
    yield Hostile(name="json cut short", body=infer()[:-20], admitted=UNPARSABLE)
    yield Hostile(name="deep json", body=b"[" * 100_000, admitted=UNPARSABLE)
    yield Hostile(name="empty image", body=infer([""]))
    yield Hostile(name="unknown output", body=infer()[:-1] + b', "outputs": [{"name": "SECRET"}]}')
    region = b'"datatype": "BYTES", "parameters": {"shared_memory_region": "x", "shared_memory_byte_size": 10}'
    yield Hostile(name="shared memory of nobody", body=infer().replace(b'"datatype": "BYTES"', region))
    yield Hostile(name="json length beyond the body", headers={"Inference-Header-Content-Length": "999999"})
    yield Hostile(name="json length negative", headers={"Inference-Header-Content-Length": "-5"}, body=infer())
    yield Hostile(name="json length no number", headers={"Inference-Header-Content-Length": "x"}, body=infer(),
                  admitted=UNPARSABLE)  # fmt: skip
    yield Hostile(name="compressed nonsense", headers={**JSON, "Content-Encoding": "gzip"}, body=b"\x1f\x8b nonsense",
                  admitted=UNPARSABLE)  # fmt: skip
    yield Hostile(name="generate without image", path=GENERATE, body=b"{}", admitted=UNPARSABLE)
    yield Hostile(name="unknown model", path="/v2/models/../../etc/passwd/infer", body=infer())
    yield Hostile(name="unknown version", path="/v2/models/ensemble/versions/99/infer", body=infer())
    for path in ("/v2/repository/models/ensemble/unload", "/v2/repository/models/ensemble/load",
                 "/v2/repository/index", "/v2/logging", "/v2/systemsharedmemory/region/x/register"):  # fmt: skip
        yield Hostile(name=f"closed {path}", path=path, body=b"{}")
    yield Hostile(name="closed trace setting", path="/v2/trace/setting", body=b'{"trace_file": "/tmp/x"}')
    yield Hostile(name="admin key guessed", path="/v2/repository/models/ensemble/unload",
                  headers={**JSON, "X-Admin-Key": "admin"}, body=b"{}")  # fmt: skip
    yield Hostile(name="long header", headers={**JSON, "X-Client-Id": "x" * 60_000}, body=infer(),
                  admitted=CLIENT_ERRORS | CLOSED | {200})  # fmt: skip
    yield Hostile(name="many headers", headers={**JSON, **{f"X-{n}": "x" for n in range(2000)}}, body=infer(),
                  admitted=CLIENT_ERRORS | CLOSED | {200})  # fmt: skip
    chunks = b"1\r\n[\r\n" * (2 << 20) + b"0\r\n\r\n"  # each takes 16 bytes of stack (CVE-2025-23310)
    yield Hostile(name="chunks of a byte", headers={**JSON, "Transfer-Encoding": "chunked"}, body=chunks,
                  admitted=UNPARSABLE | CLOSED)  # fmt: skip
    for mebibytes in (5, 100):
        yield Hostile(name=f"form of {mebibytes} MiB", headers=FORM, body=b"a=" + bytes(mebibytes << 20),
                      admitted=UNPARSABLE | CLOSED)  # fmt: skip
    yield Hostile(name="form to another path", path="/nowhere", headers=FORM, body=b"a" * (5 << 20),
                  admitted=UNPARSABLE | CLOSED)  # fmt: skip


def send_requests(url: str, expected: Expected, max_batch_size: int) -> Tally:
    """Send each hostile request, and a valid image after it."""
    image = next(iter(expected))
    tally = Tally(what="hostile requests")
    with Classify(url, timeout_s=TIMEOUT_S) as classify:
        for request in hostile_requests(image, max_batch_size):
            began_s = time.monotonic()
            status = _send(url, request)
            elapsed_s = time.monotonic() - began_s
            _count(tally, request.name, status, admitted=status in request.admitted, hung=elapsed_s > TIMEOUT_S)
            _ask(tally, classify, image, expected, after=request.name)
    return tally


def hold_slow_connections(url: str, expected: Expected, seconds: float) -> Tally:
    """Have many connections send a request byte by byte, while a client classifies."""
    image = next(iter(expected))
    parts = urlsplit(url)
    tally = Tally(what=f"{SLOW_CONNECTIONS} connections that send a byte at a time", times=SLOW_CONNECTIONS)
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
    with contextlib.ExitStack() as stack, Classify(url, timeout_s=TIMEOUT_S) as classify:
        connections = [
            stack.enter_context(socket.create_connection((str(parts.hostname), parts.port or 80), timeout=10))
            for _ in range(SLOW_CONNECTIONS)
        ]
        for number, connection in enumerate(connections):
            connection.sendall(head.encode()[: None if number % 2 else 40])
        ends_s = time.monotonic() + seconds
        while time.monotonic() < ends_s:
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.sendall(b"x")
            _ask(tally, classify, image, expected, after="slow connections")
            time.sleep(0.2)
    return tally


def _send(url: str, request: Hostile) -> int:
    """Send a request. Return the status, or 0 if the connection was closed without one."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT_S)
    try:
        connection.request(request.method, request.path, request.body, request.headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (ConnectionError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _count(tally: Tally, name: str, status: int, *, admitted: bool, hung: bool) -> None:
    tally.times += 1
    tally.sent += 1
    if hung:
        tally.hung += 1
    elif admitted:
        tally.refused += 1
    else:
        tally.wrong += 1
        tally.notes.append(f"{name}: answered {status}")


def _ask(tally: Tally, classify: Classify, image: Path, expected: Expected, *, after: str) -> None:
    tally.sent += 1
    results, status = classify(image)
    if status != 200:
        tally.lost += 1
        tally.notes.append(f"after {after}: {status} {results}")
        return
    right = is_right(results[0], expected[image])
    tally.right += right
    tally.wrong += not right
