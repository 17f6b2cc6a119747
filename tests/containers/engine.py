"""A Docker engine of our own: other folders, another network, and nothing left of it afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inference_server.triton.process import start_child, stop
from tests.deploy.tools import compose_binary

# What becomes of the engine, its containers, mounts and network is the kernel's: all of it ends with this process.
NAMESPACES = ["unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
PROGRAMS = ("dockerd", "containerd", "runc", "iptables", "unshare")
START_TIMEOUT_S = 60.0
BRIDGE = "10.212.0.1"  # this network's end of the one that builds run in
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1


class NoEngineError(Exception):
    """This machine can't run a Docker engine; the message says why."""


class ContainerError(AssertionError):
    """A docker command failed; the message has what it said."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A running engine.

    Attributes:
        environment: Environment variables with which ``docker`` and ``docker compose`` reach it.
    """

    environment: dict[str, str]

    def docker(self, *arguments: object, given: str | None = None) -> str:
        """Run a docker command, and return what it printed.

        Args:
            arguments: The command's arguments.
            given: Its standard input.

        Raises:
            ContainerError: It failed.
        """
        result = subprocess.run(
            ["docker", *map(str, arguments)],
            input=given or "", capture_output=True, text=True, env=self.environment, check=False,
        )  # fmt: skip
        if result.returncode:
            said = result.stdout + result.stderr
            raise ContainerError(f"docker {' '.join(map(str, arguments))} ended with {result.returncode}:\n{said}")
        return result.stdout.strip()

    def address(self, container: str) -> str:
        """Return a container's address in the first of its networks."""
        networks = json.loads(self.docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", container))
        return str(next(iter(networks.values()))["IPAddress"])

    def wait_until_healthy(self, container: str, timeout_s: float = 180.0) -> float:
        """Wait for a container's health check, and return the seconds since the container's start."""
        began_s = time.monotonic()
        while True:
            status = self.docker("inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", container)
            if status == "running healthy":
                return time.monotonic() - began_s
            if status.startswith("exited") or time.monotonic() > began_s + timeout_s:
                raise ContainerError(f"{container} is {status}:\n{self.logs(container)}")
            time.sleep(0.2)

    def logs(self, container: str) -> str:
        """Return the end of a container's log."""
        done = subprocess.run(
            ["docker", "logs", "--tail", "12", container],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=self.environment, check=False,
        )  # fmt: skip
        return done.stdout

    def has_said(self, container: str, text: str) -> bool:
        """Tell whether a container's log holds a text, on standard output or standard error."""
        done = subprocess.run(["docker", "logs", container], capture_output=True, env=self.environment, check=False)
        return text.encode() in done.stdout + done.stderr

    def remove_containers(self) -> None:
        """Remove all containers, running or not."""
        containers = self.docker("ps", "--all", "--quiet").split()
        if containers:
            self.docker("rm", "--force", "--volumes", *containers)


def obstacle() -> str | None:
    """Say why no engine can be started here; None if nothing is known to be in the way."""
    if os.geteuid() != 0:
        return "an engine of its own needs root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"missing: {', '.join(missing)}"
    made = subprocess.run([*NAMESPACES, "true"], capture_output=True, text=True, check=False)
    return None if made.returncode == 0 else made.stderr.strip() or "namespaces can't be made"


@contextlib.contextmanager
def running_engine(folder: Path, runc: Path | None = None) -> Iterator[Engine]:
    """Run an engine in this process's own namespaces.

    Args:
        folder: For its files.
        runc: What runs its containers; None: the runc on PATH.

    Raises:
        NoEngineError: It does not start; the message has the end of its log.
    """
    _raise_loopback()
    with tempfile.TemporaryDirectory(prefix="engine-") as runtime:  # the path of a socket has 107 characters at most
        yield from _run_engine(folder, Path(runtime), runc)


def _run_engine(folder: Path, runtime: Path, runc: Path | None) -> Iterator[Engine]:
    socket_file = runtime / "docker.sock"
    configuration = {
        "data-root": str(folder / "data"),
        "exec-root": str(runtime / "exec"),
        "pidfile": str(runtime / "docker.pid"),
        "hosts": [f"unix://{socket_file}"],
        "bip": f"{BRIDGE}/24",
        "default-address-pools": [{"base": "10.213.0.0/16", "size": 24}],
        "oom-score-adjust": 0,  # where a process may not lower its own
        "features": {"buildkit": True},
        **({"runtimes": {"given": {"path": str(runc)}}, "default-runtime": "given"} if runc else {}),
    }
    (folder / "daemon.json").write_text(json.dumps(configuration, indent=1))
    log = folder / "dockerd.log"
    with log.open("wb") as output:
        process = start_child(["dockerd", "--config-file", str(folder / "daemon.json")], output=output)
    engine = Engine(environment=_client(folder, socket_file))
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not _answers(engine):
            if process.poll() is not None or time.monotonic() > deadline_s:
                end = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
                raise NoEngineError(f"dockerd does not start:\n{end}")
            time.sleep(0.2)
        yield engine
    finally:
        with contextlib.suppress(ContainerError):
            engine.remove_containers()
        stop(process)


def _client(folder: Path, socket_file: Path) -> dict[str, str]:
    """Make the client's configuration, with Compose, and return its environment variables."""
    binaries, plugins = folder / "bin", folder / "configuration" / "cli-plugins"
    for made in (binaries, plugins):
        made.mkdir(parents=True)
    # The client that came with the engine: it builds with BuildKit alone, and another on PATH may not.
    beside = Path(shutil.which("dockerd") or "").parent.parent / "bin" / "docker"
    (binaries / "docker").symlink_to(beside if beside.exists() else shutil.which("docker") or "docker")
    (plugins / "docker-compose").symlink_to(compose_binary())
    return {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "DOCKER_HOST": f"unix://{socket_file}",
        "DOCKER_CONFIG": str(plugins.parent),
        "DOCKER_BUILDKIT": "1",
    }


def _answers(engine: Engine) -> bool:
    try:
        engine.docker("version")
    except ContainerError:
        return False
    return True


def _raise_loopback() -> None:
    """Raise the loopback interface, which is down in a new network."""
    with socket.socket() as made:
        fcntl.ioctl(made, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
