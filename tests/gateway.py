"""The gateway's own configuration in a real nginx."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_server.triton.process import free_ports, start_child

CONFIGURATION = Path(__file__).parents[1] / "deploy" / "gateway"
CERTIFICATE = Path(__file__).parent / "client" / "self_signed.pem"
START_TIMEOUT_S = 10.0
# Started by root, nginx's workers are another user by default, for whom pytest's folders are closed.
FOREGROUND = "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A running gateway."""

    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


def distributions_nginx() -> Path:
    """Find the nginx of the Linux distribution."""
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert nginx is not None, "nginx is missing: apt-get install nginx-light, as make test does"
    return Path(nginx)


@contextlib.contextmanager
def running_gateway(
    folder: Path,
    servers: Sequence[str],
    keys: Mapping[str, str],
    *,
    evaluators: Sequence[str] = (),
    origins: Sequence[str] = (),
    console: str | None = None,
) -> Iterator[Gateway]:
    """Run nginx with the files of ``deploy/gateway``.

    Args:
        folder: Folder for nginx's files; created.
        servers: ``host:port`` of each tritonserver.
        keys: Client id of each key.
        evaluators: Ids of the clients that reach ``cluster_head``.
        origins: Origins of the web pages that may ask from a browser.
        console: ``host:port`` of the console; None: there is none.
    """
    shutil.copytree(CONFIGURATION, folder)
    (port,) = free_ports(1)
    log = folder / "log"
    configuration = folder / "nginx.conf"
    for file in folder.glob("*.conf"):
        text = file.read_text().replace("listen 8443 ssl", f"listen 127.0.0.1:{port} ssl")
        file.write_text(text.replace("/dev/stdout", str(log)))
    (folder / "tls").mkdir()
    for name in ("server.crt", "server.key"):
        shutil.copy(CERTIFICATE, folder / "tls" / name)
    (folder / "keys.map").write_text("".join(f'"{key}" "{client}";\n' for key, client in keys.items()))
    (folder / "servers.conf").write_text(
        "".join(f"server {server} max_fails=1 fail_timeout=2s;\n" for server in servers)
    )
    if evaluators:
        (folder / "evaluators.map").write_text("".join(f'"{client}" 1;\n' for client in evaluators))
    if origins:
        (folder / "origins.map").write_text("".join(f'"{origin}" 1;\n' for origin in origins))
    if console is not None:
        (folder / "console.conf").write_text(f"set $console {console};\ninclude console-paths.conf;\n")
    with (folder / "errors").open("wb") as output:
        command = [distributions_nginx(), "-p", str(folder), "-c", str(configuration), "-g", FOREGROUND]
        process = start_child([*map(str, command)], output=output)
    try:
        _wait_until_listening(port, process, folder / "errors")
        yield Gateway(port=port, pid=process.pid, log=log)
    finally:
        process.terminate()
        process.wait(START_TIMEOUT_S)


def _wait_until_listening(port: int, process: subprocess.Popen[bytes], errors: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        assert process.poll() is None, errors.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise AssertionError("nginx does not listen")
