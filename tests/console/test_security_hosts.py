"""What a browser may be tricked into: DNS rebinding, and requests from pages of other sites."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from inference_console.command import main
from tests.console.running import BOUNDARY, RunningConsole, form
from tests.console.wire import exchange, statuses

pytestmark = pytest.mark.slow

EVIL = "http://evil.example"
FORMS = {
    "multipart": (f"multipart/form-data; boundary={BOUNDARY}", form({"a.png": b"no image"}, {})),
    "urlencoded": ("application/x-www-form-urlencoded", b"images=x"),
    "text": ("text/plain", b'["x"]'),
    "json": ("application/json", b'["x"]'),
}


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8090", "localhost.evil.example", "127.0.0.1.evil.example", "", "2130706433"]
)
@pytest.mark.parametrize("path", ["/", "/classify", "/version", "/health", "/static/console.css", "/no-such-path"])
def test_name_that_an_attacker_rebinds_is_refused(console: RunningConsole, host: str, path: str) -> None:
    for method in ("GET", "POST"):
        answer = console.ask(method, path, headers={"Host": host})
        assert answer.status == 421
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost:1", "[::1]:8090", "192.0.2.7:80"])
def test_addresses_and_localhost_are_answered(console: RunningConsole, host: str) -> None:
    assert console.ask("GET", "/version", headers={"Host": host}).status == 200


@pytest.mark.parametrize("name", ["https://a.example", "a.example:8443", "a.example/console/", "münchen.example", ""])
def test_host_name_that_no_browser_sends_is_refused_at_the_start(name: str) -> None:
    result = CliRunner().invoke(main, ["--host_name", name, "--port", "1"])
    assert result.exit_code == 2
    assert f"--host_name {name} is not a name alone." in result.stderr


@pytest.mark.parametrize(
    "head",
    [
        b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n",
        b"GET /version HTTP/1.1\r\n",
        b"GET /version HTTP/1.0\r\n",
        b"GET /version HTTP/1.1\r\nHost: evil.example@127.0.0.1\r\n",
        b"GET /version HTTP/1.1\r\nHost: 127.0.0.1/evil.example\r\n",
        b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\\evil.example\r\n",
        b"GET /version HTTP/1.1\r\nX-Forwarded-Host: 127.0.0.1\r\nHost: evil.example\r\n",
    ],
    ids=["two", "none", "none_1.0", "user", "path", "backslash", "forwarded"],
)
def test_odd_host_is_refused(console: RunningConsole, head: bytes) -> None:
    (status,) = statuses(exchange(console.port, head + b"Connection: close\r\n\r\n"))
    assert status in {400, 421}


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost:1", "https://127.0.0.1.evil.example", "file://"])
def test_post_from_another_origin_is_refused(console: RunningConsole, origin: str, kind: str) -> None:
    media_type, body = FORMS[kind]
    for path in ("/", "/classify", "/login", "/logout", "/base-set/check", "/base-set/face", "/base-set/rollback"):
        answer = console.ask("POST", path, headers={"Origin": origin, "Content-Type": media_type}, body=body)
        assert answer.status == 403
        assert "another site" in answer.json["detail"]


@pytest.mark.parametrize("path", ["/base-set/face/a.png", "/operations/1", "/classify"])
@pytest.mark.parametrize(
    "headers", [{"Origin": EVIL}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}]
)
def test_delete_from_another_site_is_refused(console: RunningConsole, path: str, headers: dict[str, str]) -> None:
    assert console.ask("DELETE", path, headers=headers).status == 403


def test_page_of_the_console_itself_may_post(console: RunningConsole) -> None:
    headers = {"Origin": console.url, "Sec-Fetch-Site": "same-origin"}
    assert console.ask("POST", "/classify", headers=headers, files={"a.png": b"no image"}).status == 400


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PUT", "PATCH", "BREW", "CONNECT"])
def test_other_method_gets_405_and_no_permission_for_other_origins(console: RunningConsole, method: str) -> None:
    answer = console.ask(
        method, "/classify", headers={"Origin": console.url, "Access-Control-Request-Method": "DELETE"}
    )
    assert answer.status == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert b"Access-Control-Request-Method" not in answer.body  # what TRACE would send back


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/", "GET, POST"), ("/operations/x", "DELETE, GET"), ("/base-set/a/b", "DELETE"), ("/version", "GET")],
)
def test_refusal_of_a_method_names_all_that_the_path_takes(console: RunningConsole, path: str, allowed: str) -> None:
    answer = console.ask("PUT", path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("path", ["/", "/version", "/no-such-path", "/static/console.css", "/static/../app.py"])
def test_every_answer_tells_browsers_what_pages_never_do(console: RunningConsole, path: str) -> None:
    headers = console.ask("GET", path).headers
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers
