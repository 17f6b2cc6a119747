"""``inference-server --console``: the console starts with the server, is kept running, and never harms the server."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from inference_client.command_line import extras
from inference_server.command import main
from inference_server.console import keeper
from inference_server.console.keeper import ConsoleKeeper
from inference_server.supervision.failures import MOST_FAILURES
from inference_server.supervision.watching import Watcher
from inference_server.triton.process import free_ports
from tests.watched import watched_server

WAIT_S = 30.0


def _wait_until(done: Callable[[], bool], said: Callable[[], str]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline_s, said()
        time.sleep(0.05)


def _children() -> list[psutil.Process]:
    return psutil.Process().children()


class _Said:
    """What standard error has got so far."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self._text = ""

    def __call__(self) -> str:
        self._text += self._capture.readouterr().err
        return self._text


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> _Said:
    return _Said(capfd)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restart without a pause."""
    monkeypatch.setattr(keeper, "RESTART_PAUSE_S", 0.0)


@pytest.mark.slow
def test_console_starts_with_the_server_is_started_again_when_killed_and_ends_with_it(
    small_clustering: Path, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    arguments = ("--model_repository", small_clustering, "--console", "--console_port", port)
    with watched_server(*arguments, log=tmp_path / "log") as server:

        def serves() -> bool:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/version") as answer:
                return json.load(answer)["mode"] == "clustering"
            return False

        server.wait_until_said(f"console at http://127.0.0.1:{port}\n")
        assert serves()
        console = _console(server.process.pid)
        console.kill()
        server.wait_until_said("inference-server: inference-console was killed by signal 9, and is started again\n")
        _wait_until(serves, server.said)
        assert server.is_serving()
        again = _console(server.process.pid)
        assert again != console
    assert not again.is_running()
    assert not serves()


def _console(server: int) -> psutil.Process:
    (console,) = [child for child in psutil.Process(server).children() if "inference_console" in child.cmdline()]
    return console


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    ("command", "reason"),
    [
        pytest.param([sys.executable, "-c", "raise SystemExit(1)"], "ended with code 1", id="refused"),
        pytest.param(["/no/such/program"], "can't be started (No such file or directory)", id="missing"),
    ],
)
def test_console_that_never_starts_is_given_up_and_the_server_runs_on(
    command: list[str], reason: str, said: _Said
) -> None:
    times = MOST_FAILURES + 1
    given_up = f"the console is not started again: inference-console {reason}, {times} times in a row"
    with ConsoleKeeper(command).running():
        _wait_until(lambda: given_up in said(), said)
    assert said().count("and is started again") == MOST_FAILURES
    assert said().endswith("The server runs on without it\n")


def test_console_that_does_not_heed_sigterm_is_killed_in_the_end(
    said: _Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "STOP_TIMEOUT_S", 0.2)
    monkeypatch.setattr(keeper, "LAST_LOOK_S", 5.0)
    started = tmp_path / "started"
    script = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "time.sleep(600)\n"
    )
    before = set(_children())
    with ConsoleKeeper([sys.executable, "-c", script, str(started)]).running():
        _wait_until(started.exists, said)
    assert set(_children()) == before


def test_missing_extra_and_taken_port_of_the_console_are_refused_before_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With resources that can't be exported: nothing has looked at them yet."""
    (tmp_path / "trained").mkdir()
    port, metrics_port, console_port = map(str, free_ports(3))
    given = ["-r", str(tmp_path / "trained"), "--model_repository", str(tmp_path / "out"), "--port", port,
             "--metrics_port", metrics_port, "--console"]  # fmt: skip
    with contextlib.closing(socket.create_server(("127.0.0.1", int(console_port)))):
        taken = CliRunner().invoke(main, [*given, "--console_port", console_port])
    assert taken.exit_code == 1
    assert taken.stderr.startswith(
        f"Error: 127.0.0.1:{console_port} can't be listened on (Address already in use). It is taken by "
        f"{psutil.Process().name()} (process {os.getpid()})"
    )
    assert taken.stderr.endswith("Choose another port with --console_port.\n")
    same = CliRunner().invoke(main, [*given, "--console_port", port])
    assert same.stderr == f"Error: --port and --console_port are both {port}. Give each a port of its own.\n"
    monkeypatch.setitem(extras.EXTRA_PACKAGES, "console", ("no-such-package",))
    missing = CliRunner().invoke(main, [*given, "--console_port", console_port])
    assert missing.exit_code == 1
    assert missing.stderr == (
        "Error: Packages are missing: no-such-package. Install them:\n  pip install 'classify-triton[console]'\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "refused"),
    [
        pytest.param(["--console"], None, id="with-the-console"),
        pytest.param([], "--base_data describes an export, and has no effect without -r", id="alone"),
        pytest.param(["--console", "--skip_unreadable"], "--skip_unreadable describes an export", id="other-option"),
    ],
)
def test_folder_of_base_images_may_be_named_for_the_console_alone(
    given: list[str], refused: str | None, small_clustering: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watcher, "run", lambda _: 0)
    ports = [str(port) for port in free_ports(3)]
    arguments = ["--model_repository", str(small_clustering), "-data", str(tmp_path), *given, "--port", ports[0],
                 "--metrics_port", ports[1], "--console_port", ports[2]]  # fmt: skip
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == (2 if refused else 0), result.output
    assert (refused or "starting tritonserver") in result.stderr
