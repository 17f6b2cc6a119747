"""The console behind the gateway, under /console/: a real console, a real nginx, and what neither lets through."""

from __future__ import annotations

import contextlib
import http.client
import http.cookiejar
import json
import re
import secrets
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from inference_server.triton.process import RunningServer, free_ports
from tests.console.running import BOUNDARY, RunningConsole, form, running_console
from tests.gateway import CERTIFICATE, Gateway, running_gateway

pytestmark = pytest.mark.slow

API_KEY = "correct-horse-battery-staple"
TOKENS = {role: secrets.token_hex(32) for role in ("classify", "change")}
HTML = {"Accept": "text/html"}
FORM = f"multipart/form-data; boundary={BOUNDARY}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back through the gateway."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    gateway: Gateway, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """Send one request, and follow no redirect."""
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    connection = http.client.HTTPSConnection("localhost", gateway.port, context=context, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return Answer(status=answer.status, headers=dict(answer.getheaders()), body=answer.read())


def bearer(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[role]}"}


@pytest.fixture(scope="module")
def console(
    tmp_path_factory: pytest.TempPathFactory, clustering_server: RunningServer, base_data: dict[str, list[Path]]
) -> Iterator[RunningConsole]:
    folder = tmp_path_factory.mktemp("console")
    tokens = folder / "tokens"
    tokens.touch(0o600)
    tokens.write_text("".join(f"{role}-user {role} {token}\n" for role, token in TOKENS.items()))
    base = next(iter(base_data.values()))[0].parents[1]
    with running_console(
        folder / "log", "-ip", clustering_server.url, "-data", str(base), "--token_file", str(tokens), "--proxy",
        "127.0.0.1", "--model_repository", str(clustering_server.repository),
    ) as running:  # fmt: skip
        yield running


@pytest.fixture(scope="module")
def gateway(
    tmp_path_factory: pytest.TempPathFactory, console: RunningConsole, clustering_server: RunningServer
) -> Iterator[Gateway]:
    with running_gateway(
        tmp_path_factory.mktemp("gateway") / "nginx",
        [clustering_server.url.removeprefix("http://")],
        {API_KEY: "ward 7"},
        origins=["https://photos.example.org"],
        console=f"127.0.0.1:{console.port}",
    ) as running:
        yield running


class _Browser:
    """Follows redirects and keeps cookies, as browsers do."""

    def __init__(self, gateway: Gateway) -> None:
        self.root = f"{gateway.url}/console/"
        self.cookies = http.cookiejar.CookieJar()
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=context), urllib.request.HTTPCookieProcessor(self.cookies)
        )

    def open(self, path: str, fields: dict[str, str] | None = None, **headers: str) -> tuple[int, str, str]:
        """Open a page, or send it a form; return the status, the URL at which it ended, and the text."""
        body = None if fields is None else form({}, fields)
        sent = {**HTML, **headers, **({} if body is None else {"Content-Type": FORM, "Origin": self.root[:-9]})}
        request = urllib.request.Request(urllib.parse.urljoin(self.root, path), body, sent)
        try:
            with self._opener.open(request, timeout=60) as answer:
                return answer.status, answer.url, answer.read().decode(errors="replace")  # thumbnails too
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.url, error.read().decode()


def test_people_log_in_and_every_link_and_form_of_every_page_stays_under_the_prefix(gateway: Gateway) -> None:
    browser = _Browser(gateway)
    status, url, text = browser.open("../console")
    assert (status, url) == (200, f"{browser.root}login"), text
    status, url, text = browser.open("login", {"token": TOKENS["classify"]})
    assert (status, url) == (200, browser.root), text
    (cookie,) = browser.cookies
    assert (cookie.path, cookie.secure) == ("/console", True)
    assert "HttpOnly" in cookie._rest  # type: ignore[attr-defined]
    waiting, seen = [browser.root], set()
    while waiting:
        page = waiting.pop()
        status, url, text = browser.open(page)
        assert status == 200, f"{page}: {status}\n{text}"
        seen.add(url)
        is_page = text.startswith("<!doctype html>")
        for attribute, target in re.findall(r'(href|src|action)="([^"#]*)', text) if is_page else ():
            linked = urllib.parse.urljoin(url, target)
            assert linked.startswith(browser.root), f"{page} leads to {linked}"
            if attribute != "action" and not target.startswith("data:") and linked not in {*seen, *waiting}:
                waiting.append(linked)
    names = {page.removeprefix(browser.root) for page in seen}
    assert {"", "base-set", "status", "docs", "openapi.json", "static/console.css", "static/console.js"} <= names
    assert any("thumbnail" in name for name in names), names
    status, url, text = browser.open("logout", {})
    assert (status, url) == (200, f"{browser.root}login"), text
    assert not browser.cookies


def test_who_may_classify_may_not_change_the_base_set(gateway: Gateway, query_images: list[Path]) -> None:
    body = form({"a.jpg": query_images[0].read_bytes()}, {})
    sent = {**bearer("classify"), "Content-Type": FORM}
    assert ask(gateway, "POST", "/console/classify", sent, body).json[0]["Label"]
    for method, path in (
        ("POST", "base-set/alpha"),
        ("POST", "base-set/rollback"),
        ("DELETE", "base-set/alpha/a.jpg"),
        ("DELETE", "base-set/alpha/a.jpg?forget=true&confirm=alpha/a.jpg"),
    ):
        answer = ask(gateway, method, f"/console/{path}", sent, body if method == "POST" else None)
        assert answer.status == 403, f"{method} {path}: {answer}"
        assert answer.json["detail"].startswith("classify-user may classify, but not change the base set.")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 401, id="none"),
        pytest.param({"X-API-Key": API_KEY}, 401, id="of-the-servers"),
        pytest.param({"Authorization": f"Bearer {API_KEY}"}, 401, id="of-the-servers-as-token"),
        pytest.param(bearer("change"), 200, id="of-the-console"),
    ],
)
def test_keys_of_the_servers_open_no_console(gateway: Gateway, headers: dict[str, str], status: int) -> None:
    assert ask(gateway, "GET", "/console/version", headers).status == status


def test_token_of_the_console_opens_no_server(gateway: Gateway) -> None:
    path = "/v2/models/ensemble/config"
    assert ask(gateway, "GET", path, {**bearer("change"), "X-API-Key": TOKENS["change"]}).status == 403
    assert ask(gateway, "GET", path, {"X-API-Key": API_KEY}).status == 200


def test_lies_about_where_a_request_comes_from_do_nothing(gateway: Gateway, console: RunningConsole) -> None:
    lies = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Prefix": "/evil",
        "X-Real-IP": "203.0.113.9",
        "Forwarded": "for=203.0.113.9;host=evil.example;proto=http",
        "X-Client-Id": "ward 8",
    }
    browser = _Browser(gateway)
    status, url, text = browser.open("login", {"token": TOKENS["change"]}, **lies)
    assert (status, url) == (200, browser.root), text
    assert "evil" not in text
    assert all(cookie.secure for cookie in browser.cookies)
    lines = [json.loads(line) for line in console.log.read_text().splitlines() if line.startswith("{")]
    assert {line["address"] for line in lines} == {"127.0.0.1"}
    host = {"Host": "evil.example", **bearer("change")}
    assert ask(gateway, "GET", "/console/version", host).status == 421


def test_pages_of_other_sites_are_told_nothing_and_post_nothing(gateway: Gateway) -> None:
    """Also those that may ask the servers from a browser."""
    origin = {"Origin": "https://photos.example.org"}
    answer = ask(gateway, "GET", "/console/version", {**origin, **bearer("change")})
    assert answer.status == 200
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]
    posted = ask(gateway, "POST", "/console/classify", {**origin, **bearer("change"), "Content-Type": FORM}, b"")
    assert posted.status == 403
    preflight = {**origin, "Access-Control-Request-Method": "POST"}
    assert ask(gateway, "OPTIONS", "/console/classify", preflight).status == 405


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "says"),
    [
        pytest.param("PUT", "/console/base-set/a", {}, 405, "GET, HEAD, POST and DELETE", id="method"),
        pytest.param(
            "POST", "/console/classify", {"Content-Encoding": "gzip"}, 415, "without Content-Encoding", id="compressed"
        ),
        pytest.param("POST", "/console/classify", {"Content-Length": f"{97 << 20}"}, 413, "96 MiB", id="too-long"),
        pytest.param("GET", "/console/no-such-page", bearer("change"), 404, "", id="of-the-console-itself"),
    ],
)
def test_refusals_under_the_prefix_are_problem_details(
    gateway: Gateway, method: str, path: str, headers: dict[str, str], status: int, says: str
) -> None:
    answer = ask(gateway, method, path, headers)
    assert answer.status == answer.json["status"] == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert says in answer.json["detail"]


def test_log_of_the_gateway_names_no_image_and_no_token(gateway: Gateway) -> None:
    ask(gateway, "DELETE", "/console/base-set/alpha/anna-smith.jpg", bearer("classify"))
    log = gateway.log.read_text()
    assert '"request": "DELETE /console/"' in log
    assert "anna" not in log
    assert not any(token in log for token in TOKENS.values())


class _Recorder(BaseHTTPRequestHandler):
    """Stands in for a console: keeps what reaches it."""

    seen: ClassVar[list[tuple[str, dict[str, str]]]] = []

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.path, dict(self.headers.items())))
        self.send_response(204)
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[Gateway]:
    """A gateway in front of a console that only keeps what reaches it."""
    _Recorder.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Recorder) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            with running_gateway(
                tmp_path / "nginx",
                [f"127.0.0.1:{port}" for port in free_ports(1)],
                {API_KEY: "ward 7"},
                console=f"127.0.0.1:{server.server_port}",
            ) as gateway:
                yield gateway
        finally:
            server.shutdown()


def test_any_name_in_a_path_reaches_the_console_as_it_was_sent(recorded: Gateway) -> None:
    for name in ("a b", "100%", "what?", "a#b", "a+b", "a&b=c", "ä", "%41", "a;b", "<b>", "a\nb\n"):
        path = f"/base-set/face/{urllib.parse.quote(name, safe='')}"
        assert ask(recorded, "GET", f"/console{path}?confirm=a%2Fb&x=%3F").status == 204
        reached, _, query = _Recorder.seen[-1][0].partition("?")
        assert urllib.parse.unquote(reached) == urllib.parse.unquote(path)
        assert query == "confirm=a%2Fb&x=%3F"


@pytest.mark.parametrize(
    "path",
    ["/console/../v2/repository/index", "/console/%2e%2e/v2/repository/index", "/consoles", "/console-errors/lost"],
)
def test_path_that_only_looks_like_the_consoles_is_not_served(recorded: Gateway, path: str) -> None:
    answer = ask(recorded, "GET", path)
    assert answer.status == 404
    assert "not served" in answer.json["error"]
    assert not _Recorder.seen


def test_headers_that_only_gateways_set_are_set_or_taken_away(recorded: Gateway) -> None:
    sent = {
        "X-Forwarded-For": "1.2.3.4",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Port": "1",
        "X-Forwarded-Prefix": "/evil",
        "X-Real-IP": "1.2.3.4",
        "Forwarded": "for=1.2.3.4",
        "X-API-Key": API_KEY,
        "X-Admin-Key": "key",
        "X-Client-Id": "ward 8",
        "Authorization": "Bearer token",
        "Cookie": "session=1",
        "Accept": "*/*",
    }
    assert ask(recorded, "GET", "/console/", sent).status == 204
    ((path, headers),) = _Recorder.seen
    assert path == "/"
    assert headers == {
        "Host": f"localhost:{recorded.port}",
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Proto": "https",
        "Authorization": "Bearer token",
        "Cookie": "session=1",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
    }


def test_guesses_of_a_token_are_limited_by_the_gateway_too_and_pages_are_not(recorded: Gateway) -> None:
    body = form({}, {"token": "wrong"})
    statuses = [ask(recorded, "POST", "/console/login", {"Content-Type": FORM}, body).status for _ in range(20)]
    assert statuses[:11] == [204] * 11
    assert set(statuses[12:]) == {429}  # one is admitted every 6 s
    answer = ask(recorded, "POST", "/console/login", {"Content-Type": FORM}, body)
    assert answer.json["detail"] == "Too many requests came from this address. Try again in a minute."
    assert [ask(recorded, "GET", "/console/login").status for _ in range(30)] == [204] * 30


def test_console_that_is_away_is_a_503_and_the_servers_are_asked_as_before(
    tmp_path: Path, clustering_server: RunningServer
) -> None:
    with running_gateway(
        tmp_path / "nginx",
        [clustering_server.url.removeprefix("http://")],
        {API_KEY: "ward 7"},
        console=f"127.0.0.1:{free_ports(1)[0]}",
    ) as gateway:
        answer = ask(gateway, "GET", "/console/")
        assert (answer.status, answer.json["detail"]) == (503, "The console does not answer. Try again in a minute.")
        assert ask(gateway, "GET", "/v2/models/ensemble/config", {"X-API-Key": API_KEY}).status == 200


def test_gateway_without_a_console_serves_none(tmp_path: Path) -> None:
    with running_gateway(
        tmp_path / "nginx", [f"127.0.0.1:{port}" for port in free_ports(1)], {API_KEY: "ward 7"}
    ) as gateway:
        for path in ("/console", "/console/", "/console/login", "/console-errors/lost"):
            answer = ask(gateway, "GET", path, {"X-API-Key": API_KEY})
            assert answer.status == 404
            assert "not served" in answer.json["error"]
