"""Who may use a console that asks for tokens: guessing, sessions, the log, and lies about addresses."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from inference_console.app import create_app
from inference_console.security import sessions as sessions_module
from inference_console.security.guesses import MAX_GUESSES, Guesses
from inference_console.security.sessions import Sessions
from inference_console.security.tokens import TokenFileError, User, read_token_file
from inference_console.settings import Settings
from inference_server.triton.process import free_ports
from tests.console.running import RunningConsole, running_console

pytestmark = pytest.mark.slow

CLASSIFIER, CHANGER = "nurse-" + "c" * 40, "doctor-" + "d" * 40
WRONG = "wrong-" + "w" * 40
HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text(f"# who may\nward-7 classify {CLASSIFIER}\n\ndoctor change {CHANGER}\n")
    file.chmod(0o600)
    return file


@pytest.fixture(scope="module")
def arguments(token_file: Path) -> tuple[str, ...]:
    """Arguments of a console in front of a server that is away."""
    return ("-ip", f"http://127.0.0.1:{free_ports(1)[0]}", "--token_file", str(token_file))


@pytest.fixture(scope="module")
def proxied(arguments: tuple[str, ...], workspace: Path) -> Iterator[RunningConsole]:
    """A console behind a gateway, which the tests play."""
    names = ("--host_name", "console.example")
    with running_console(workspace / "proxied.log", *arguments, *names, "--proxy", "127.0.0.1") as running:
        yield running


@pytest.fixture(scope="module")
def direct(arguments: tuple[str, ...], workspace: Path) -> Iterator[RunningConsole]:
    """A console without a gateway."""
    with running_console(workspace / "direct.log", *arguments) as running:
        yield running


def from_address(address: str, **more: str) -> dict[str, str]:
    return {"X-Forwarded-For": address, **more}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def log_in(console: RunningConsole, token: str, **headers: str) -> str:
    answer = console.ask("POST", "/login", headers=headers, fields={"token": token})
    assert answer.status == 303, answer.text
    return answer.headers["set-cookie"]


@pytest.mark.parametrize("path", ["/", "/status", "/docs", "/version"])
def test_stranger_gets_401_and_a_browser_the_login_page(proxied: RunningConsole, path: str) -> None:
    answer = proxied.ask("GET", path)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    page = proxied.ask("GET", path, headers=HTML)
    assert (page.status, page.headers["location"]) == (303, "./login")


def all_routes() -> list[tuple[str, str]]:
    """List method and path of everything that the application answers, with names filled in."""
    included = [getattr(route, "original_router", None) for route in create_app(Settings()).routes]
    routes = [route for router in included if router is not None for route in router.routes]
    return [
        (method, re.sub(r"\{\w+(:\w+)?\}", "x", route.path)) for route in routes for method in sorted(route.methods)
    ]


OPEN = {("GET", "/health"), ("GET", "/login"), ("POST", "/logout")}  # a login without a token is refused with 401 too
FOR_THOSE_WHO_CLASSIFY = {("POST", "/"), ("POST", "/classify"), ("POST", "/login"), ("POST", "/logout")}


def test_stranger_gets_401_wherever_it_is_not_meant_to_be_open(proxied: RunningConsole) -> None:
    routes = all_routes()
    assert len(routes) > 20
    answered = {route for route in routes if proxied.ask(*route, fields={}).status != 401}
    assert answered == OPEN


def test_those_who_may_classify_get_403_wherever_something_changes(proxied: RunningConsole) -> None:
    changing = {route for route in all_routes() if route[0] != "GET"}
    refused = {route for route in changing if proxied.ask(*route, headers=bearer(CLASSIFIER), fields={}).status == 403}
    assert changing - refused == FOR_THOSE_WHO_CLASSIFY


@pytest.mark.parametrize("path", ["/", "/classify"])
def test_stranger_is_refused_before_the_body_is_read(proxied: RunningConsole, path: str) -> None:
    answer = proxied.ask("POST", path, headers={"Content-Type": "application/json", "Content-Length": str(90 * 2**20)})
    assert answer.status == 401


@pytest.mark.parametrize("header", ["Basic bnVyc2U6eA==", "Bearer", "Bearer ", "bearer\t", "Token x", "\xff"])
def test_odd_authorization_is_no_login(proxied: RunningConsole, header: str) -> None:
    assert proxied.ask("GET", "/version", headers=from_address("192.0.2.1", Authorization=header)).status == 401


def test_token_opens_the_api(proxied: RunningConsole) -> None:
    assert proxied.ask("GET", "/version", headers=bearer(CLASSIFIER)).status == 503  # the server is away


def test_address_that_guesses_waits_and_others_do_not(proxied: RunningConsole) -> None:
    guesser = "198.51.100.1"
    session = log_in(proxied, CHANGER, **from_address(guesser)).partition(";")[0]
    for number in range(MAX_GUESSES):
        if number % 2:
            answer = proxied.ask("POST", "/login", headers=from_address(guesser), fields={"token": WRONG})
        else:
            answer = proxied.ask("GET", "/version", headers=from_address(guesser, **bearer(WRONG)))
        assert answer.status == 401
    for token in (WRONG, CHANGER):
        answer = proxied.ask("GET", "/version", headers=from_address(guesser, **bearer(token)))
        assert answer.status == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert proxied.ask("POST", "/login", headers=from_address(guesser), fields={"token": CHANGER}).status == 429
    assert proxied.ask("GET", "/version", headers=from_address(guesser, Cookie=session)).status == 503
    assert proxied.ask("GET", "/version", headers=from_address("198.51.100.2", **bearer(CHANGER))).status == 503


def test_wrong_token_on_a_page_counts_once(proxied: RunningConsole) -> None:
    headers = from_address("198.51.100.9", **bearer(WRONG), **HTML)
    for _ in range(MAX_GUESSES):
        assert proxied.ask("GET", "/no-such-path", headers=headers).status == 404
    assert proxied.ask("GET", "/version", headers=from_address("198.51.100.9", **bearer(CHANGER))).status == 429


def test_forwarded_address_counts_only_from_the_gateway(direct: RunningConsole) -> None:
    for number in range(MAX_GUESSES):
        direct.ask("GET", "/version", headers=from_address(f"198.51.100.{number}", **bearer(WRONG)))
    assert direct.ask("GET", "/version", headers=from_address("203.0.113.7", **bearer(CHANGER))).status == 429
    lines = direct.log.read_text()
    assert '"address": "127.0.0.1"' in lines
    assert "198.51.100" not in lines


def test_cookie_is_for_this_site_and_no_script(proxied: RunningConsole) -> None:
    cookie = log_in(proxied, CLASSIFIER, **from_address("192.0.2.2"))
    assert re.fullmatch(r"console_session=[\w-]{43}; HttpOnly; Max-Age=43200; SameSite=strict", cookie)


@pytest.mark.parametrize(("proxy_says", "is_secure"), [("https", True), ("http", False)])
def test_cookie_is_secure_where_the_gateway_says_https(
    proxied: RunningConsole, proxy_says: str, is_secure: bool
) -> None:
    cookie = log_in(proxied, CLASSIFIER, **from_address("192.0.2.3", **{"X-Forwarded-Proto": proxy_says}))
    assert ("; Secure" in cookie) is is_secure


def test_https_site_refuses_its_own_name_without_https(proxied: RunningConsole) -> None:
    headers = {"Host": "console.example", "X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.4"}
    for scheme, status in (("https", 303), ("http", 403)):
        origin = {"Origin": f"{scheme}://console.example"}
        answer = proxied.ask("POST", "/login", headers=headers | origin, fields={"token": CHANGER})
        assert answer.status == status


def test_login_from_a_page_of_another_site_is_refused(proxied: RunningConsole) -> None:
    answer = proxied.ask("POST", "/login", headers={"Origin": "http://evil.example"}, fields={"token": CHANGER})
    assert answer.status == 403
    assert "set-cookie" not in answer.headers


def test_login_longer_than_a_token_is_refused(proxied: RunningConsole) -> None:
    answer = proxied.ask("POST", "/login", headers=from_address("192.0.2.5"), files={"token": b"x" * 10**6})
    assert answer.status == 413


def test_session_ends_with_logout_and_is_of_one_console(proxied: RunningConsole, direct: RunningConsole) -> None:
    cookie = {"Cookie": log_in(proxied, CLASSIFIER, **from_address("192.0.2.6")).partition(";")[0]}
    assert proxied.ask("GET", "/version", headers=cookie).status == 503
    assert direct.ask("GET", "/version", headers=cookie).status == 401  # as after a restart
    answer = proxied.ask("POST", "/logout", headers=cookie)
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert proxied.ask("GET", "/version", headers=cookie).status == 401


@pytest.mark.parametrize("name", ["", "x", "../../etc/passwd", "a" * 5000, "%00"])
def test_made_up_session_is_none(proxied: RunningConsole, name: str) -> None:
    assert proxied.ask("GET", "/version", headers={"Cookie": f"console_session={name}"}).status == 401


def test_log_names_who_asked_and_no_token(proxied: RunningConsole) -> None:
    session = log_in(proxied, CHANGER, **from_address("192.0.2.8"))
    secret = session.partition(";")[0].partition("=")[2]
    proxied.ask("GET", f"/version?token={WRONG}", headers=bearer(CLASSIFIER))
    proxied.ask("GET", f"/{WRONG}", headers=from_address("192.0.2.8", **bearer(WRONG)))
    proxied.ask("POST", "/login", headers=from_address("192.0.2.8"), fields={"token": WRONG})
    proxied.ask("B" * 5000, "/")
    text = proxied.log.read_text()
    assert '"user": "ward-7", ' in text
    assert '"user": "doctor", ' in text
    assert not [token for token in (CLASSIFIER, CHANGER, WRONG, secret, "B" * 20) if token in text]


def test_health_needs_no_token_and_tells_strangers_no_address(proxied: RunningConsole) -> None:
    answer = proxied.ask("GET", "/health")
    assert answer.status == 503
    assert "127.0.0.1" not in answer.text
    assert "127.0.0.1" in proxied.ask("GET", "/health", headers=bearer(CLASSIFIER)).text


def test_addresses_of_one_ipv6_network_guess_together() -> None:
    guesses = Guesses()
    for number in range(MAX_GUESSES):
        guesses.count(f"2001:db8::{number:x}")
    assert guesses.wait_s("2001:db8::ffff") > 0
    assert guesses.wait_s("2001:db8:0:1::") == 0


def test_table_of_guesses_stays_bounded() -> None:
    guesses = Guesses()
    for number in range(20_000):
        guesses.count(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
    assert len(guesses._wrong) <= 10_000


def test_session_ends_after_its_lifetime(monkeypatch: pytest.MonkeyPatch) -> None:
    user = User(name="a", may_change=False, digest=b"")
    sessions = Sessions()
    assert sessions.user(sessions.begin(user)) == user
    monkeypatch.setattr(sessions_module, "LIFETIME_S", -1)
    assert sessions.user(sessions.begin(user)) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"a classify {'x' * 31}", "at least 32 characters"),
        (f"a classify {'ä' * 40}", "not plain ASCII"),
        (f"{CHANGER} doctor change", "no role"),
        (f"doctor {CHANGER} change", "no role"),
        (f"{CHANGER} change doctor", "short"),
        (f"{CHANGER}", "holds 1 words"),
        (f"a change {CHANGER} b", "holds 4 words"),
        (f"a change {CHANGER}\na classify {CLASSIFIER}", "the same name"),
        (f"a change {CHANGER}\nb classify {CHANGER}", "the same token"),
        (f"a\u202eb change {CHANGER}", "can't be printed"),
        ("# nobody\n", "names nobody"),
        ("", "names nobody"),
    ],
)
def test_wrong_token_file_is_refused_without_quoting_a_token(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(content)
    file.chmod(0o640)
    with pytest.raises(TokenFileError, match=message) as caught:
        read_token_file(file)
    assert CHANGER not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o666])
def test_token_file_open_to_everybody_is_refused(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"a change {CHANGER}\n")
    file.chmod(mode)
    with pytest.raises(TokenFileError, match="chmod o-rwx"):
        read_token_file(file)


def test_token_file_of_an_editor_of_windows_is_read(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_bytes(b"\xef\xbb\xbf" + f"a change {CHANGER}\r\n".encode())
    file.chmod(0o600)
    (user,) = read_token_file(file)
    assert user == replace(user, name="a", may_change=True)


@pytest.mark.parametrize(
    ("more", "message"),
    [(("--host", "0.0.0.0"), "needs --token_file"), (("--proxy", "*"), "neither an IP address nor a network")],
)
def test_open_console_without_a_guard_does_not_start(
    tmp_path: Path, arguments: tuple[str, ...], more: tuple[str, ...], message: str
) -> None:
    given = arguments if more[0] == "--proxy" else ()
    with contextlib.suppress(AssertionError), running_console(tmp_path / "log", *given, *more):
        pytest.fail("it started")
    assert message in " ".join((tmp_path / "log").read_text().split())
