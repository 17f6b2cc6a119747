"""The units of ``deploy/systemd/``; tests/containers/systemd.py boots them."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from inference_console.command import main as inference_console
from inference_export import ExportOptions, export_repository
from inference_server.base_set.command import main as base_set
from inference_server.base_set.watching import LAST_LOOK_S
from inference_server.command import main as inference_server
from inference_server.console.keeper import STOP_TIMEOUT_S
from inference_server.supervision.service_manager import READY, STOPPING, notify
from inference_server.supervision.watching import EXIT_TIMEOUT_S, LAST_ANSWERS_S, LONGEST_START_S
from tests import tiny_network
from tests.containers.systemd import REASON, page_blocks
from tests.deploy.manifests import DEPLOY
from tests.watched import watched_server

FOLDER = DEPLOY / "systemd"
SERVER, SYNC = FOLDER / "inference-server.service", FOLDER / "base-set-sync.service"
CONSOLE = FOLDER / "inference-console.service"
UNITS = sorted([*FOLDER.glob("*.service"), *FOLDER.glob("*.timer")])
ENVIRONMENT = "/opt/classify/bin/"
# Of 100. Each restriction that is missing for a reason has its reason in the unit.
HIGHEST_EXPOSURE = 13
_SECONDS = {"s": 1, "min": 60, "h": 3600}
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing: on Debian, apt-get install systemd"
)


class _Unit(configparser.RawConfigParser):
    """A unit file; a setting that occurs several times has its values one on each line."""

    def __init__(self, file: Path) -> None:
        super().__init__(strict=False, delimiters="=", comment_prefixes="#", interpolation=None)
        self.optionxform = str  # type: ignore[assignment,method-assign]
        self.read(file)

    def seconds(self, section: str, name: str) -> float:
        number, unit = re.fullmatch(r"(\d+)(\w+)", self[section][name]).groups()
        return float(number) * _SECONDS[unit]


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_finds_no_mistake_in_the_unit(unit: Path, tmp_path: Path) -> None:
    """systemd-analyze wants the programs to exist, and only warns about a setting that it does not know."""
    for file in UNITS:
        text = file.read_text(encoding="utf-8").replace(ENVIRONMENT, f"{tmp_path}/")
        (tmp_path / file.name).write_text(text)
    for program in ("inference-server", "base-set", "inference-console"):
        (tmp_path / program).symlink_to("/bin/true")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / unit.name],
        capture_output=True, text=True, check=False, env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit", [SERVER, SYNC, CONSOLE], ids=lambda unit: unit.name)
def test_unit_is_shut_in(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={HIGHEST_EXPOSURE}", "--no-pager", unit],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Overall exposure level" in done.stdout


def test_stop_and_start_have_the_time_that_the_server_may_take() -> None:
    unit = _Unit(SERVER)
    assert unit.seconds("Service", "TimeoutStopSec") > LAST_LOOK_S + EXIT_TIMEOUT_S + LAST_ANSWERS_S
    assert unit.seconds("Service", "TimeoutStartSec") > LONGEST_START_S
    assert unit["Service"]["KillMode"] == "mixed"  # SIGTERM to tritonserver and the models would cut requests off


def test_commands_of_the_units_are_ours() -> None:
    """A renamed option would show only at the next start."""
    for file, command, program in (
        (SERVER, inference_server, "inference-server"),
        (SYNC, base_set, "base-set"),
        (CONSOLE, inference_console, "inference-console"),
    ):
        lines = re.findall(r"^Exec\w+=(\S+) (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert lines
        for path, text in lines:
            assert path == ENVIRONMENT + program
            arguments = text.replace("${PORT}", "8080").replace("$OPTIONS", "").split()
            done = CliRunner().invoke(command, [*arguments, "--help"])
            assert done.exit_code == 0, done.output


def test_console_is_behind_tokens_ends_with_the_server_and_has_the_time_it_may_take() -> None:
    unit = _Unit(CONSOLE)
    assert "--token_file /etc/classify/console-tokens" in unit["Service"]["ExecStart"]
    assert "--host " not in unit["Service"]["ExecStart"]  # loopback, behind the gateway
    assert unit["Unit"]["PartOf"] == unit["Install"]["WantedBy"] == SERVER.name
    assert int(unit["Unit"]["StartLimitBurst"]) > 2 * int(_Unit(SERVER)["Unit"]["StartLimitBurst"])
    assert unit.seconds("Service", "TimeoutStopSec") > STOP_TIMEOUT_S
    assert unit["Service"]["KillMode"] == "mixed"  # the console itself ends a change that it has begun


def test_all_services_are_one_user_and_share_the_cache() -> None:
    server, sync, console = (_Unit(file)["Service"] for file in (SERVER, SYNC, CONSOLE))
    for name in ("User", "CacheDirectory"):
        assert server[name] == sync[name] == console[name]
    # Forgetting, by hand and in the console, looks into the memory of the server.
    assert "PrivateUsers" not in {*server, *console}
    users = (FOLDER / "sysusers.conf").read_text(encoding="utf-8")
    assert re.search(rf"^u {server['User']} - \S+ /var/lib/classify$", users.replace('"', ""), re.MULTILINE)
    # Both would take something of the running server's away when another service ends.
    for service in (sync, console):
        assert "RuntimeDirectory" not in service
        assert "RemoveIPC" not in service


def test_blocks_of_the_page_that_need_systemd_are_followed_in_a_container() -> None:
    page = (DEPLOY.parent / "docs" / "how-to" / "systemd.md").read_text(encoding="utf-8")
    assert page.count(f"<!-- not run here: {REASON} -->") == len(page_blocks()) > 0


@pytest.mark.slow
def test_service_manager_is_told_when_the_server_answers_and_when_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "model_repository"
    trained = tiny_network.write_tiny_resources(tmp_path / "trained")
    export_repository(ExportOptions(resources=trained, network=tiny_network.NETWORK, model_repository=repository))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "manager"))
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "manager"))
        with watched_server("--model_repository", repository, log=tmp_path / "log") as server:
            assert manager.recv(100).decode() == READY
            assert server.is_serving()
            manager.setblocking(False)
            with pytest.raises(BlockingIOError):
                manager.recv(100)
        assert manager.recv(100).decode() == STOPPING


@pytest.mark.parametrize("address", ["{folder}/user@1/notify", "@classify-{folder}"], ids=["path", "abstract"])
def test_service_manager_is_told_at_any_address(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user@1").mkdir()
    address = address.format(folder=tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        notify(READY)
        assert manager.recv(100).decode() == READY


@pytest.mark.parametrize("address", ["", "/no/such/socket", "vsock:2:1"])
def test_service_manager_that_is_not_there_is_no_mistake(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    notify(READY)
