"""Bodies that are too long, compressed, broken, or made to explode; memory over many uploads."""

from __future__ import annotations

import gzip
from itertools import repeat
from pathlib import Path

import psutil
import pytest

from tests.console.running import BOUNDARY, RunningConsole, form
from tests.console.wire import HOST, connection, exchange, send, statuses

pytestmark = pytest.mark.slow

M = 2**20
FILE = b'Content-Disposition: form-data; name="files"; filename="a.png"\r\n'
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


def head(path: bytes, *lines: bytes) -> bytes:
    return b"\r\n".join([b"POST " + path + b" HTTP/1.1", HOST + b"Connection: close", *lines, b"", b""])


def part(headers: bytes, content: bytes) -> bytes:
    return f"--{BOUNDARY}\r\n".encode() + headers + b"\r\n" + content + b"\r\n"


def memory_mib(console: RunningConsole) -> float:
    return psutil.Process(console.process.pid).memory_info().rss / M


@pytest.mark.parametrize("length", [str(97 * M), "9" * 18, "9" * 5000])
@pytest.mark.parametrize("path", [b"/", b"/classify", b"/login", b"/base-set/check"])
def test_announced_body_beyond_the_limit_is_refused_before_it_is_sent(
    console: RunningConsole, path: bytes, length: str
) -> None:
    received = exchange(
        console.port, head(path, b"Content-Type: application/json", b"Content-Length: " + length.encode())
    )
    assert statuses(received)[0] in ({413} if len(length) < 100 else {400, 413})


@pytest.mark.parametrize(
    ("kind", "begin"),
    [(b"application/json", b'["'), (MULTIPART.encode(), f"--{BOUNDARY}\r\n".encode() + FILE + b"\r\n")],
    ids=["json", "multipart"],
)
def test_body_of_no_announced_length_is_refused_while_it_is_read(
    console: RunningConsole, kind: bytes, begin: bytes
) -> None:
    before_mib = memory_mib(console)
    chunk = b"%x\r\n%b\r\n" % (M, b"A" * M)
    lines = b"Content-Type: " + kind + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connection(console.port) as opened:
        send(opened, [b"POST /classify HTTP/1.1\r\n" + HOST + lines, b"%x\r\n%b\r\n" % (len(begin), begin)])
        send(opened, repeat(chunk, 200))
        assert statuses(opened.recv(2**16)) == [413]
        assert memory_mib(console) < before_mib + 3 * 96
    assert console.ask("GET", "/version").status == 200


def test_client_that_sends_everything_first_sees_the_refusal(console: RunningConsole) -> None:
    answer = console.ask("POST", "/classify", files={"a.png": bytes(100 * M)})
    assert answer.status == 413
    assert "96 MiB" in answer.json["detail"]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "x"])
def test_compressed_body_is_refused(console: RunningConsole, coding: str) -> None:
    bomb = gzip.compress(b"A" * (10 * M))
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    for path in ("/", "/classify", "/login", "/base-set/check"):
        answer = console.ask("POST", path, headers=headers, body=bomb)
        assert answer.status == 415
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "body",
    [
        b"[" * (10 * M),
        b'{"images":' * M,
        b"[" + b"[]," * (10 * M) + b"[]]",
        b'["' + b'","' * (5 * M) + b'"]',
        b"[1" + b"0" * 10**6 + b"]",
        b"[1e999999999]",
        b"null",
        b'"text"',
        b'{"images": {"a": "b"}}',
        b'{"images": [null]}',
        b'["\\ud800"]',
        b"\xff\xfe[\x00]\x00",
        b"",
    ],
    ids=[
        "open",
        "objects",
        "lists",
        "texts",
        "number",
        "infinity",
        "null",
        "text",
        "object",
        "nulls",
        "surrogate",
        "utf16",
        "empty",
    ],
)
@pytest.mark.parametrize("path", ["/", "/classify"])
def test_json_that_is_no_list_of_texts_is_refused(console: RunningConsole, path: str, body: bytes) -> None:
    answer = console.ask("POST", path, headers={"Content-Type": "application/json"}, body=body)
    assert answer.status == 400
    assert len(answer.body) < 1000


@pytest.mark.parametrize(
    "body",
    [
        b"".join(part(b'Content-Disposition: form-data; name="a"\r\n', b"") for _ in range(5000)),
        b"".join(part(FILE, b"x") for _ in range(5000)),
        part(FILE + b"X-Long: " + b"A" * M + b"\r\n", b""),
        part(FILE + b"X: y\r\n" * 10_000, b""),
        part(b'Content-Disposition: form-data; name="a"\r\n', b"A" * M),
        part(b"Content-Type: image/png\r\n", b""),
        part(b'Content-Disposition: form-data; name="' + b"a" * M + b'"\r\n', b""),
        b"A" * M,
        b"",
        part(FILE, b"x")[:-9],
    ],
    ids=["fields", "files", "header", "headers", "field", "nameless", "name", "no_parts", "empty", "cut"],
)
def test_form_that_is_broken_or_a_bomb_is_refused(console: RunningConsole, body: bytes) -> None:
    end = b"" if body[-2:] != b"\r\n" else f"--{BOUNDARY}--\r\n".encode()
    answer = console.ask("POST", "/classify", headers={"Content-Type": MULTIPART}, body=body + end)
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ('multipart/form-data; boundary="', 400),
        ("multipart/form-data; boundary=" + "b" * 300, 400),
        (f"{MULTIPART}; charset=punycode", 415),
        (f"{MULTIPART}; charset=zlib", 415),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
        ("", 415),
        ("application/json/x", 415),
        ("\xe4", 415),
    ],
)
def test_odd_type_of_a_body_is_refused(console: RunningConsole, kind: str, status: int) -> None:
    body = form({"a.png": b"x"}, {})
    assert console.ask("POST", "/classify", headers={"Content-Type": kind}, body=body).status == status


@pytest.mark.parametrize(
    "raw",
    [
        head(b"/", b"Content-Length: 2", b"Content-Length: 40") + b"[]GET /health HTTP/1.1\r\n" + HOST + b"\r\n",
        head(b"/", b"Content-Length: 2, 40") + b"[]",
        head(b"/", b"Content-Length: -2") + b"[]",
        head(b"/", b"Content-Length: +2") + b"[]",
        head(b"/", b"Transfer-Encoding: chunked, identity") + b"2\r\n[]\r\n0\r\n\r\n",
        head(b"/", b"Transfer-Encoding: xchunked") + b"2\r\n[]\r\n0\r\n\r\n",
        head(b"/", b"Transfer-Encoding : chunked") + b"2\r\n[]\r\n0\r\n\r\n",
        head(b"/", b"Content-Type: application/json", b"Transfer-Encoding: chunked") + b"zz\r\n[]\r\n0\r\n\r\n",
        head(b"/", b"Content-Type: application/json", b"Transfer-Encoding: chunked") + b"-2\r\n[]\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b" folded: x\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"A: " + b"a" * 10**6 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + HOST + b"A\x00: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
    ids=[
        "lengths", "length_list", "negative", "plus", "identity", "coding", "space", "chunk", "negative_chunk",
        "folded", "long_header", "null", "tls",
    ],
)  # fmt: skip
def test_request_that_two_programs_read_differently_is_refused_and_ends_the_connection(
    console: RunningConsole, raw: bytes
) -> None:
    received = exchange(console.port, raw)
    assert [status for status in statuses(received) if status not in {400, 421, 501}] == []
    assert b"classifies" not in received
    assert console.ask("GET", "/version").status == 200


def test_memory_is_flat_over_many_uploads(console: RunningConsole) -> None:
    content = bytes(8 * M)
    sizes_mib = []
    for number in range(20):
        files = {"a.png": content} if number % 2 else None
        json = None if number % 2 else ["A" * (8 * M)]
        assert console.ask("POST", "/classify", files=files, json=json).status == 400
        sizes_mib.append(memory_mib(console))
    assert max(sizes_mib[10:]) < max(sizes_mib[:10]) + 16


def test_nothing_that_is_only_classified_is_written(console: RunningConsole, query_images: list[Path]) -> None:
    process = psutil.Process(console.process.pid)
    before = process.io_counters().write_bytes
    for name in ("a.png", "b.png"):
        console.ask("POST", "/classify", files={name: query_images[0].read_bytes() + bytes(8 * M)})
    assert process.io_counters().write_bytes - before < M
