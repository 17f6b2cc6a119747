"""Probes and health checks, run against a real server and a busy one."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen

import psutil
import pytest
import yaml
from click.testing import CliRunner

from inference_server.addresses import LOOPBACK
from inference_server.command import main as server_main
from inference_server.errors import ServerError
from inference_server.supervision.checking import check
from tests.deploy.manifests import (
    DOCKERFILE,
    INFERENCE_SERVICE,
    OVERLAYS,
    Manifest,
    find_manifest,
    image_command,
    instructions,
    manifest,
    server_container,
)
from tests.watched import watched_server

CHECK = ["inference-server", "--check"]
# Only the container's Triton, newer than pip's, has these.
NEWER_OPTIONS = ("--http-max-input-size",)


@pytest.fixture(scope="module")
def probes(rendered: dict[str, list[Manifest]]) -> list[tuple[list[str], float]]:
    """Every probe's command with its time limit, and the image's health check."""
    commands = []
    for manifests in rendered.values():
        for resource in manifests:
            others = {"gateway", "inference-console"}
            if resource["kind"] in {"Deployment", "InferenceService"} and resource["metadata"]["name"] not in others:
                container = server_container(resource)
                for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                    commands.append((container[probe]["exec"]["command"], container[probe]["timeoutSeconds"]))
    health = instructions(DOCKERFILE.read_text())["HEALTHCHECK"][-1]
    commands.append((yaml.safe_load(health.partition("CMD ")[2]), float(re.findall(r"--timeout=(\d+)s", health)[0])))
    return commands


def test_server_with_the_manifests_arguments_passes_their_probes_until_a_model_has_died(
    rendered: dict[str, list[Manifest]],
    probes: list[tuple[list[str], float]],
    small_clustering: Path,
    tmp_path: Path,
) -> None:
    served = [
        server_container(find_manifest(rendered[name], "Deployment", "inference-server")) for name in OVERLAYS[:3]
    ]
    for container in served:
        assert container["args"] == image_command()
        assert container["args"][0].partition("=")[2] == container["volumeMounts"][0]["mountPath"]
    kserve = server_container(manifest(INFERENCE_SERVICE))["args"]
    assert kserve[1:] == image_command()[1:]

    def arguments(given: list[str]) -> list[str]:
        here = [
            f"--model_repository={small_clustering}" if argument.startswith("--model_rep") else argument
            for argument in given
        ]
        return [argument for argument in here if not argument.startswith(NEWER_OPTIONS)]

    with watched_server(*arguments(image_command()), log=tmp_path / "log") as server:
        for command, timeout_s in probes:
            assert command[: len(CHECK)] == CHECK
            result = CliRunner().invoke(server_main, [*command[1:], "--port", str(server.port)])
            assert result.exit_code == 0, result.output
            given_s = float(re.findall(r"--check_timeout=(\d+)", " ".join(command))[0]) if len(command) > 2 else 5.0
            assert timeout_s > given_s + 2  # for the start of the command
        watcher = psutil.Process(server.process.pid)
        watcher.suspend()  # a supervisor would replace dead processes
        try:
            for process in server.model_processes("preprocess"):  # otherwise another process might answer
                process.kill()
            for words in {tuple(command[1:]) for command, _ in probes}:
                result = CliRunner().invoke(server_main, [*words, "--port", str(server.port)])
                assert result.exit_code == 1, result.output
            # So probes can't ask Triton itself, before 26.04.
            assert urlopen(f"{server.url}/v2/health/ready", timeout=10).status == 200
        finally:
            watcher.resume()


class _Answers(BaseHTTPRequestHandler):
    """Gives the remaining answers in turn: a status, and with 200 a label."""

    left: ClassVar[list[int]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        status = self.left.pop(0)
        body = json.dumps({"outputs": [{"data": ["alpha"]}]} if status == 200 else {"error": "said"}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.mark.parametrize(
    ("statuses", "timeout_s", "refused"),
    [
        pytest.param([503, 503, 200], 30, None, id="busy-and-then-not"),
        pytest.param([503], 0.4, "answered 503", id="busy-for-too-long"),
        pytest.param([500, 200], 30, "answered 500", id="broken"),
    ],
)
def test_check_asks_a_busy_server_again_and_a_broken_one_once(
    statuses: list[int], timeout_s: float, refused: str | None
) -> None:
    """With Triton's words for a full queue and a dead process: filling a real queue for certain takes minutes."""
    _Answers.left = [*statuses]
    with ThreadingHTTPServer((LOOPBACK, 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            if refused is None:
                check(LOOPBACK, server.server_port, timeout_s)
            else:
                with pytest.raises(ServerError, match=refused):
                    check(LOOPBACK, server.server_port, timeout_s)
        finally:
            server.shutdown()
    assert len(_Answers.left) == (1 if refused == "answered 500" else 0)
