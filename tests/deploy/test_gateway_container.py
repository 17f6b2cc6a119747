"""The gateway in real nginxes, the newest and Debian's: its configurations, and its container's command and reload."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from inference_server.triton.process import free_ports, start_child
from tests.deploy.manifests import DEPLOY, HOW_TO, KUBERNETES, Manifest, compose_file, find_manifest, pod_spec
from tests.deploy.tools import newest_nginx
from tests.gateway import CERTIFICATE, FOREGROUND, distributions_nginx

# What nginx writes, all in the folder of -p.
WRITTEN = {
    "nginx.pid", "client_body_temp", "proxy_temp", "fastcgi_temp", "uwsgi_temp", "scgi_temp",
}  # fmt: skip
IN_A_CONTAINER = ["-p", "/tmp/", "-c", "/etc/classify-gateway/nginx.conf"]


@dataclass(frozen=True, kw_only=True)
class _GatewayFolder:
    """The gateway's files as in its container, but in the test's own folders."""

    configuration: Path
    writable: Path
    port: int

    def command(self, given: list[str], nginx: Path | None = None) -> list[str]:
        """The container's command with this folder's paths, for Debian's nginx or another."""
        places = {
            "/tmp/": f"{self.writable}/",
            "/etc/classify-gateway/nginx.conf": str(self.configuration / "nginx.conf"),
            "daemon off;": FOREGROUND,
        }
        assert given[0] == "nginx"
        return [str(nginx or distributions_nginx()), *(places.get(argument, argument) for argument in given[1:])]

    def check(self, nginx: Path) -> subprocess.CompletedProcess[str]:
        """Have an nginx read the configuration, and make its folders."""
        command = self.command(["nginx", *IN_A_CONTAINER, "-t"], nginx)
        return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def gateway_folder(tmp_path: Path) -> _GatewayFolder:
    """The files of ``deploy/gateway``, one key, and a server that does not exist."""
    configuration, writable = tmp_path / "configuration", tmp_path / "writable"
    (configuration / "tls").mkdir(parents=True)
    writable.mkdir()
    port, closed = free_ports(2)
    for file in (DEPLOY / "gateway").glob("*.conf"):
        text = file.read_text().replace("listen 8443", f"listen 127.0.0.1:{port}")
        (configuration / file.name).write_text(text)
    for name in ("server.crt", "server.key"):
        shutil.copy(CERTIFICATE, configuration / "tls" / name)
    (configuration / "keys.map").write_text('"key" "ward-7";\n')
    (configuration / "servers.conf").write_text(f"server 127.0.0.1:{closed};\n")  # Debian 12's nginx has no resolve yet
    return _GatewayFolder(configuration=configuration, writable=writable, port=port)


def test_gateways_command_runs_with_its_configuration_read_only(
    rendered: dict[str, list[Manifest]], gateway_folder: _GatewayFolder
) -> None:
    (container,) = pod_spec(find_manifest(rendered["volume"], "Deployment", "gateway"))["containers"]
    assert container["command"] == compose_file()["services"]["gateway"]["entrypoint"]
    before = sorted(gateway_folder.configuration.rglob("*"))
    command = [*gateway_folder.command(container["command"]), "-t"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert sorted(gateway_folder.configuration.rglob("*")) == before


@pytest.mark.parametrize(
    ("servers", "nginx"),
    [
        pytest.param(DEPLOY / "compose" / "servers.conf", newest_nginx, id="compose-newest"),
        pytest.param(KUBERNETES / "base" / "servers.conf", newest_nginx, id="kubernetes-newest"),
        pytest.param(None, newest_nginx, id="tls-page-newest"),
        pytest.param(None, distributions_nginx, id="tls-page-debian"),
    ],
)
def test_every_configuration_of_the_gateway_is_one_that_nginx_takes(
    gateway_folder: _GatewayFolder, servers: Path | None, nginx: Callable[[], Path]
) -> None:
    if servers is None:
        ((line),) = re.findall(r"^echo '(server .*;)' > gateway/servers\.conf$", _page("tls.md"), re.MULTILINE)
    else:
        # nginx looks up the resolver's own name, which only a cluster knows, when it reads the file.
        line = re.sub(r"^resolver kube-dns\S+", "resolver 10.96.0.10", servers.read_text(), flags=re.MULTILINE)
    (gateway_folder.configuration / "servers.conf").write_text(line + "\n")
    _check(gateway_folder, nginx())


@pytest.mark.parametrize(
    ("console", "nginx"),
    [
        pytest.param(DEPLOY / "compose" / "console.conf", newest_nginx, id="compose-newest"),
        pytest.param(KUBERNETES / "console" / "console.conf", newest_nginx, id="kubernetes-newest"),
        pytest.param(None, newest_nginx, id="tls-page-newest"),
        pytest.param(None, distributions_nginx, id="tls-page-debian"),
    ],
)
def test_every_configuration_of_the_console_is_one_that_nginx_takes(
    gateway_folder: _GatewayFolder, console: Path | None, nginx: Callable[[], Path]
) -> None:
    if console is None:
        lines = re.findall(r"^echo '(.*;)' >>? gateway/console\.conf$", _page("tls.md"), re.MULTILINE)
        text = "".join(f"{line}\n" for line in lines)
        assert "set $console" in text
    else:
        text = console.read_text().replace("resolver kube-dns.kube-system.svc.cluster.local", "resolver 10.96.0.10")
    (gateway_folder.configuration / "console.conf").write_text(text)
    _check(gateway_folder, nginx())


def _check(gateway_folder: _GatewayFolder, nginx: Path) -> None:
    result = gateway_folder.check(nginx)
    print(f"\n{result.stderr}")
    assert result.returncode == 0, result.stderr
    assert "[warn]" not in result.stderr
    assert {path.name for path in gateway_folder.writable.iterdir()} == WRITTEN, "it writes elsewhere"


@pytest.mark.parametrize("nginx", [newest_nginx, distributions_nginx], ids=["newest", "debian"])
@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        pytest.param("nginx.conf", "keepalive 32;", "keepalve 32;", "unknown directive", id="misspelt"),
        pytest.param("checks.conf", "connections 64", "conections 64", 'zone "conections"', id="unknown-zone"),
        pytest.param("proxy.conf", "$client;", "$clent;", 'unknown "clent" variable', id="unknown-variable"),
        pytest.param("keys.map", '"ward-7";', '"ward-7"', "unexpected end of file", id="key-without-semicolon"),
    ],
)
def test_broken_configuration_is_refused(
    gateway_folder: _GatewayFolder, nginx: Callable[[], Path], file: str, old: str, new: str, complaint: str
) -> None:
    path = gateway_folder.configuration / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    result = gateway_folder.check(nginx())
    assert result.returncode == 1
    assert complaint in result.stderr


@pytest.mark.parametrize("nginx", [newest_nginx, distributions_nginx], ids=["newest", "debian"])
def test_body_on_its_way_lies_in_the_folder_that_the_deployments_make_room_in(
    gateway_folder: _GatewayFolder, nginx: Callable[[], Path], tmp_path: Path
) -> None:
    with _running(gateway_folder, tmp_path / "log", nginx()) as process, socket.socket() as plain:
        _wait_for(gateway_folder, 503)
        plain.connect(("127.0.0.1", gateway_folder.port))
        with _trusted().wrap_socket(plain, server_hostname="localhost") as connection:
            connection.sendall(
                b"POST /v2/models/ensemble/infer HTTP/1.1\r\nHost: localhost\r\nX-API-Key: key\r\n"
                b"Content-Type: application/octet-stream\r\nContent-Length: 4000000\r\n\r\n" + bytes(3_000_000)
            )
            bodies: set[Path] = set()
            deadline_s = time.monotonic() + 10
            while not bodies:
                assert time.monotonic() < deadline_s, (tmp_path / "log").read_text()
                bodies = {body for worker in psutil.Process(process.pid).children() for body in _deleted_files(worker)}
                time.sleep(0.05)
    assert {body.parent for body in bodies} == {gateway_folder.writable / "client_body_temp"}
    room = [mount.partition(":")[0] for mount in compose_file()["services"]["gateway"]["tmpfs"]]
    assert room == [IN_A_CONTAINER[1].rstrip("/")]


def test_key_that_was_taken_back_is_refused_after_the_pages_reload(
    gateway_folder: _GatewayFolder, tmp_path: Path
) -> None:
    (reload,) = re.findall(r"exec gateway (nginx .*-s reload)", _page("containers.md"))
    with _running(gateway_folder, tmp_path / "log"):
        _wait_for(gateway_folder, 503)  # the key is known, but there is no server
        (gateway_folder.configuration / "keys.map").write_text('"another" "ward-8";\n')
        subprocess.run(gateway_folder.command(reload.split()), check=True, capture_output=True)
        _wait_for(gateway_folder, 403)


@contextlib.contextmanager
def _running(folder: _GatewayFolder, log: Path, nginx: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        started = compose_file()["services"]["gateway"]["entrypoint"]
        process = start_child(folder.command(started, nginx), output=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(folder: _GatewayFolder, status: int) -> None:
    url = f"https://localhost:{folder.port}/v2/models/ensemble/config"
    request = urllib.request.Request(url, headers={"X-API-Key": "key"})
    context = _trusted()
    deadline_s = time.monotonic() + 10
    while True:
        try:
            with urllib.request.urlopen(request, context=context, timeout=5) as response:
                answered = response.status
        except urllib.error.HTTPError as error:
            answered = error.code
            error.close()
        except urllib.error.URLError:
            answered = None  # not up yet
        if answered == status:
            return
        assert time.monotonic() < deadline_s, f"{answered} and not {status}"
        time.sleep(0.05)


def _deleted_files(process: psutil.Process) -> Iterator[Path]:
    """The files that a process has open but that have no name any more, as nginx's temporary files."""
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = str(descriptor.readlink())
            if target.endswith(" (deleted)") and not target.startswith(("/dev/", "/memfd:", "/SYSV")):
                yield Path(target.removesuffix(" (deleted)"))


def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTIFICATE))


def _page(name: str) -> str:
    return (HOW_TO / name).read_text()
