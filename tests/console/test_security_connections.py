"""Connections on which little happens, too many connections, and clients that leave."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from inference_console.command import main
from inference_console.security.connections import MAX_CONNECTIONS
from tests.console.running import RunningConsole, running_console
from tests.console.wire import HOST, connection, send, statuses

pytestmark = pytest.mark.slow

JSON = b"Content-Type: application/json\r\n"
POST = b"POST /classify HTTP/1.1\r\n" + HOST + JSON
SLOW = {
    "nothing": (b"", b""),
    "half_a_line": (b"GET /vers", b""),
    "headers": (b"GET /version HTTP/1.1\r\n" + HOST, b"A: b\r\n"),
    "second_headers": (b"GET /static/console.css HTTP/1.1\r\n" + HOST + b"\r\n", b"G"),
    "body": (POST + b"Content-Length: 1000\r\n\r\n[", b" "),
    "silent_body": (POST + b"Content-Length: 1000\r\n\r\n[", b""),
    "chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n", b"1\r\n \r\n"),
    "unread_body": (b"POST /no-such-path HTTP/1.1\r\n" + HOST + b"Content-Length: 9999\r\n\r\n", b" "),
}


def _drip(port: int, begin: bytes, drop: bytes) -> list[int]:
    """Send a beginning, and then drops, until the console closes the connection; return the statuses of its answers."""
    with connection(port) as opened:
        send(opened, [begin])
        received = b""
        opened.settimeout(0.5)
        for _ in range(120):
            with contextlib.suppress(TimeoutError):
                try:
                    chunk = opened.recv(2**16)
                except ConnectionError:
                    return statuses(received)
                received += chunk
                if not chunk:
                    return statuses(received)
            send(opened, [drop])
    raise AssertionError("the console leaves the connection open")


@pytest.fixture(scope="module", autouse=True)
def slow(console: RunningConsole) -> Iterator[dict[str, Future[list[int]]]]:
    """The slow connections, which go on while other tests of this file run."""
    with ThreadPoolExecutor(len(SLOW)) as pool:
        yield {name: pool.submit(_drip, console.port, *parts) for name, parts in SLOW.items()}


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """A server that takes requests and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        yield listener


def test_client_that_leaves_takes_its_request_off_the_server(
    silent_server: socket.socket, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("left") / "log"
    url = f"http://127.0.0.1:{silent_server.getsockname()[1]}"
    with running_console(log, "-ip", url) as console:
        with connection(console.port) as opened:
            send(opened, [POST + b'Content-Length: 8\r\n\r\n["AAAA"]'])
            asked, _ = silent_server.accept()
            asked.settimeout(30)
            assert asked.recv(2**16)
        with asked:
            while asked.recv(2**16):
                pass  # until the console closes the connection
        deadline_s = time.monotonic() + 30
        while '"status": 499' not in log.read_text() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        text = log.read_text()
        assert '"status": 499' in text
        assert "Traceback" not in text


def test_client_that_leaves_during_its_upload_is_no_failure_of_the_console(console: RunningConsole) -> None:
    with connection(console.port) as opened:
        send(opened, [POST + b"Content-Length: 1000\r\n\r\n["])
    assert console.ask("GET", "/version").status == 200
    assert "Traceback" not in console.log.read_text()


def test_idle_connections_lock_nobody_out(console: RunningConsole) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(MAX_CONNECTIONS + 20):
            opened = stack.enter_context(connection(console.port))
            if number % 2:
                send(opened, [b"GET /version HTTP/1.1\r\n"])
        assert console.ask("GET", "/version").status == 200


@pytest.mark.parametrize("name", SLOW)
def test_connection_on_which_little_happens_is_closed(slow: dict[str, Future[list[int]]], name: str) -> None:
    expected = {"second_headers": [200], "unread_body": [404]}
    bodies = {"body", "silent_body", "chunks"}
    assert slow[name].result() == expected.get(name, [408] if name in bodies else [])


def test_taken_port_of_a_second_console_is_named(console: RunningConsole) -> None:
    result = CliRunner().invoke(main, ["--port", str(console.port)])
    assert result.exit_code == 1
    assert f"(process {console.process.pid}); another inference-console? Choose another port" in result.stderr
