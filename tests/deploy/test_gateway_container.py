"""The gateway container's command and reload, in a real nginx."""

from __future__ import annotations

import re
import shutil
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from inference_server.triton.process import free_ports, start_child
from tests.deploy.manifests import DEPLOY, HOW_TO, Manifest, compose_file, find_manifest, pod_spec
from tests.gateway import CERTIFICATE


@dataclass(frozen=True, kw_only=True)
class _GatewayFolder:
    """The gateway's files as in its container, but in the test's own folders."""

    configuration: Path
    writable: Path
    port: int

    def command(self, given: list[str]) -> list[str]:
        """The container's command with this folder's paths."""
        nginx = shutil.which(given[0], path="/usr/sbin:/usr/bin")
        assert nginx is not None, "nginx is missing: apt-get install nginx-light, as make test does"
        places = {
            "/tmp/": f"{self.writable}/",
            "/etc/classify-gateway/nginx.conf": str(self.configuration / "nginx.conf"),
        }
        return [nginx, *(places.get(argument, argument) for argument in given[1:])]


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
    assert (gateway_folder.writable / "nginx.pid").exists()


def test_key_that_was_taken_back_is_refused_after_the_pages_reload(
    gateway_folder: _GatewayFolder, tmp_path: Path
) -> None:
    (reload,) = re.findall(r"exec gateway (nginx .*-s reload)", (HOW_TO / "containers.md").read_text())
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    request = urllib.request.Request(
        f"https://localhost:{gateway_folder.port}/v2/models/ensemble/config", headers={"X-API-Key": "key"}
    )

    def wait_for(status: int) -> None:
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

    with (tmp_path / "log").open("wb") as output:
        started = compose_file()["services"]["gateway"]["entrypoint"]
        process = start_child(gateway_folder.command(started), output=output)
    try:
        wait_for(503)  # the key is known, but there is no server
        (gateway_folder.configuration / "keys.map").write_text('"another" "ward-8";\n')
        subprocess.run(gateway_folder.command(reload.split()), check=True, capture_output=True)
        wait_for(403)
    finally:
        process.terminate()
        process.wait(10)
