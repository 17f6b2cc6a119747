"""The key of a running server is found whatever variables a command is started with, and no other user's is trusted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inference_export.repository.locks import hold_version
from inference_server.errors import ServerError
from inference_server.triton.access import (
    Access,
    access_file,
    change_version,
    claim,
    find_access_file,
    find_servers,
    read_access,
    write_access,
)
from inference_server.triton.access_folders import access_folders
from inference_server.triton.process import free_ports
from tests.base_set.conftest import Living
from tests.checkout import CHECKOUT
from tests.docs.network import can_isolate
from tests.docs.snippets import read_snippets
from tests.resources import write_faces
from tests.watched import START_TIMEOUT_S

PORT = 8080
RECIPE = CHECKOUT / "docs" / "how-to" / "change-the-base-set.md"


def _access(repository: Path, version: int = 1) -> Access:
    return Access(pid=1, grpc_port=1, key="key", repository=str(repository), version=version, configs={})


@contextmanager
def _server(repository: Path) -> Iterator[None]:
    with claim(PORT):
        write_access(PORT, _access(repository))
        yield


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Return a function that sets exactly the given ones of the variables that name folders."""

    def set_variables(**given: Path) -> None:
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        for name in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, folder in given.items():
            monkeypatch.setenv(name, str(folder))

    return set_variables


def test_server_started_without_variables_is_found_with_them_and_its_version_recorded(
    variables: Callable[..., None], tmp_path: Path
) -> None:
    variables()
    with _server(tmp_path):
        variables(XDG_RUNTIME_DIR=tmp_path / "run", XDG_CACHE_HOME=tmp_path / "cache")
        assert find_servers(tmp_path) == [PORT]
        change_version(PORT, 7)
        assert not access_file(PORT).exists()
        variables()
        assert read_access(PORT).version == 7


def test_folders_of_sessions_and_of_systemd_are_looked_into_without_any_variable(
    variables: Callable[..., None],
) -> None:
    variables()
    named = access_folders()
    assert Path(f"/run/user/{os.geteuid()}/inference-server") in named
    assert Path("/run/inference-server") in named


def test_own_server_comes_before_one_of_other_variables_on_the_same_port(
    variables: Callable[..., None], tmp_path: Path
) -> None:
    variables()
    with _server(tmp_path / "without"):
        variables(XDG_RUNTIME_DIR=tmp_path / "run")
        assert find_servers(tmp_path / "without") == [PORT]
        with _server(tmp_path / "with"):
            assert find_servers(tmp_path / "with") == [PORT]
        assert find_servers(tmp_path / "without") == [PORT]


@pytest.mark.parametrize("others_may", ["0o770", "0o707"])
def test_folder_that_others_can_write_is_neither_trusted_nor_used(
    variables: Callable[..., None], tmp_path: Path, others_may: str
) -> None:
    variables(XDG_RUNTIME_DIR=tmp_path)
    with _server(tmp_path):
        access_file(PORT).parent.chmod(int(others_may, 8))
        assert find_access_file(PORT) is None
        assert find_servers(tmp_path) == []
        with pytest.raises(ServerError, match="others can write into it"):
            write_access(PORT, _access(tmp_path))
    with pytest.raises(ServerError, match="others can write into it"), claim(PORT):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user: run the tests as root")
def test_folder_of_another_user_is_not_trusted(variables: Callable[..., None], tmp_path: Path) -> None:
    variables(XDG_RUNTIME_DIR=tmp_path)
    with _server(tmp_path):
        os.chown(access_file(PORT).parent, 12345, -1)
        assert find_servers(tmp_path) == []


def test_server_that_is_not_found_is_told_with_every_folder_and_variable(
    variables: Callable[..., None], tmp_path: Path
) -> None:
    variables(XDG_RUNTIME_DIR=tmp_path / "run", XDG_CACHE_HOME=tmp_path / "cache")
    with pytest.raises(ServerError) as raised:
        read_access(PORT)
    for named in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", f"/run/user/{os.geteuid()}/inference-server",
                  str(tmp_path / "run"), str(tmp_path / "cache"), str(tmp_path / "home" / ".cache")):  # fmt: skip
        assert named in str(raised.value)


@pytest.mark.slow
def test_change_that_does_not_reach_a_running_server_says_so(living: Living) -> None:
    """As the server of another user, whose key this command can't read: the version that it holds tells of it."""
    assert living.ask("sync")["notes"] == []
    with hold_version(living.repository, 1):
        done = living.ask("set", "-thres", 0.6, images=False)
        assert done["servers"] == []
        assert "keeps its version" in done["notes"][0]
        assert "restart the server" in living.run("rollback", images=False).stdout


@pytest.mark.slow
@pytest.mark.skipif(not can_isolate(), reason="makes a folder in /run/user: run the tests where unshare works")
def test_crontab_line_of_the_page_reaches_a_server_that_a_session_has_started(living: Living, tmp_path: Path) -> None:
    """cron sets HOME, SHELL, PATH and no XDG_RUNTIME_DIR; a session's is /run/user/<uid>."""
    (recipe,) = (block.code for block in read_snippets(RECIPE) if "cat > base-set.cron" in block.code)
    (living.folder / ".venv").symlink_to(CHECKOUT / ".venv")
    write_faces(living.base / "face", [60], "new")
    port, metrics_port = free_ports(2)
    script = tmp_path / "session.sh"
    script.write_text(
        f"""set -euo pipefail
mount -t tmpfs none /run
export XDG_RUNTIME_DIR=/run/user/$(id -u)
mkdir -p -m 755 /run/user && mkdir -m 700 "$XDG_RUNTIME_DIR"
cd '{living.folder}'
export HOME=$PWD
.venv/bin/inference-server --port {port} --metrics_port {metrics_port} > server.log 2>&1 &
trap 'kill $!; wait' EXIT
for _ in $(seq {START_TIMEOUT_S:.0f}); do grep -q 'ready at' server.log && break; sleep 1; done
{recipe}
env -i HOME="$HOME" SHELL=/bin/sh PATH=/usr/bin:/bin sh -c "$(cut -d ' ' -f 6- base-set.cron)"
cat sync.log
"""
    )
    unshare = ["unshare", "--mount", *(["--user", "--map-root-user"] if os.geteuid() else [])]
    done = subprocess.run([*unshare, "bash", str(script)], capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"served now by inference-server on port {port}" in done.stdout
