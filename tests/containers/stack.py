"""The stack of ``compose.yaml``, under load, while an operator follows the page."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from inference_client import Classify
from tests import monitoring
from tests.chaos.load import Expected, Load, expected_answers
from tests.chaos.tally import Tally
from tests.containers.place import HOST, Place, exit_code
from tests.containers.stand_ins import SYSTEM
from tests.deploy.manifests import HOW_TO

URL = f"https://{HOST}:8443"
SERVER, PROMETHEUS, CONSOLE = "classify-server-1", "classify-prometheus-1", "classify-console-1"
GATEWAY = "classify-gateway-1"
COMPOSE_FILES = ("compose.yaml", "compose.console.yaml", "compose.override.yaml")
CLIENTS, PAUSE_S = 2, 0.05
# Kills the first process of a model in the container, which has no tools for that.
KILL_MODEL = """
import os, signal
from inference_server.supervision.model_processes import descendants, model_processes
(server,) = [pid for pid in descendants(1) if model_processes(pid, frozenset({"preprocess"}))]
os.kill(model_processes(server, frozenset({"preprocess"}))[0].pid, signal.SIGKILL)
"""


class _Stack:
    def __init__(self, place: Place) -> None:
        self._place = place
        self.key = secrets.token_urlsafe()
        self.expected: Expected = {}

    @property
    def secrets_folder(self) -> Path:
        return self._place.clone / "deploy" / "secrets"

    def compose(self, *arguments: str) -> str:
        return self._place.engine.docker("compose", "--project-directory", self._place.clone / "deploy", *arguments)

    def answers(self) -> Expected:
        return expected_answers(URL, self._place.setting.images, api_key=self.key)

    @contextmanager
    def load(self, what: str) -> Iterator[tuple[Tally, Load]]:
        tally = Tally(what=what, times=1)
        with Load(URL, [self.expected], tally, clients=CLIENTS, pause_s=PAUSE_S, api_key=self.key) as load:
            yield tally, load
            time.sleep(1)
        tally.notes += load.failures[:3]


def run_stack(place: Place) -> Iterator[Tally]:
    """Follow the page from its third section to its end, with clients that classify all the while."""
    stack = _Stack(place)
    yield _start(place, stack)
    yield _recreate_at_another_address(place, stack)
    yield _kill_model(place, stack)
    yield _roll_out(place, stack)
    yield _upgrade(place, stack)
    yield _change_keys(place, stack)
    yield _add_console(place, stack)
    yield _send_alerts(place, stack)
    yield _stop_server(place, stack)
    _ask_every_rule(place, _prometheus(place))
    stack.compose("down", "--volumes", "--timeout", "60")


def _start(place: Place, stack: _Stack) -> Tally:
    tally = Tally(what="compose up", times=1)
    place.containers.run_until("ls -la deploy/secrets")
    with (stack.secrets_folder / "keys.map").open("a") as keys:
        keys.write(f'"{stack.key}" "load";\n')
    seconds = place.containers.run_until("docker compose up -d --build --wait")
    tally.notes.append(f"all healthy after {seconds:.0f} s")
    (place.clone / "server.crt").write_bytes((stack.secrets_folder / "server.crt").read_bytes())
    os.environ["SSL_CERT_FILE"] = str(place.clone / "server.crt")
    place.containers.run_until(f"-ip {URL}")
    assert _published(place) == {"8443/tcp", "127.0.0.1:3000->3000/tcp"}
    with Classify(URL, api_key="wrong") as wrong, Classify(URL) as without:
        image = place.setting.images[0]
        assert (wrong(image)[1], without(image)[1]) == (403, 401)
    stack.expected = stack.answers()
    return tally


def _published(place: Place) -> set[str]:
    lines = place.engine.docker("ps", "--format", "{{.Ports}}").splitlines()
    ports = {port.strip() for line in lines for port in line.split(",") if "->" in port}
    return {port.replace("0.0.0.0:8443->", "").replace(":::8443->", "") for port in ports}


def _recreate_at_another_address(place: Place, stack: _Stack) -> Tally:
    before = place.engine.address(SERVER)
    with stack.load("server recreated at another address") as (tally, _):
        stack.compose("rm", "--stop", "--force", "server")
        squatter = ("--detach", "--rm", "--name", "squatter", "--network", "classify_servers")
        place.engine.docker("run", *squatter, SYSTEM, "sleep", "600")
        stack.compose("up", "--detach", "--wait", "server")
        after = place.engine.address(SERVER)
        place.engine.docker("rm", "--force", "squatter")
    assert before != after
    tally.notes.append(f"from {before} to {after}")
    return tally


def _kill_model(place: Place, stack: _Stack) -> Tally:
    with stack.load("model process killed") as (tally, _):
        place.engine.docker("exec", SERVER, "python3", "-c", KILL_MODEL)
        wait_until(lambda: place.engine.has_said(SERVER, "was restarted in"))  # its repository is read-only
        place.engine.wait_until_healthy(SERVER)
    return tally


def _roll_out(place: Place, stack: _Stack) -> Tally:
    with stack.load("new export rolled out") as (tally, load):
        place.containers.run_until("docker compose up -d --wait server")
        load.expected.append(stack.answers())
        with Classify(URL, api_key=stack.key, details=True) as classify:
            (entry,), _ = classify(place.setting.images[0])
    assert entry["Version"] == 2, entry
    stack.expected = load.expected[-1]
    return tally


def _upgrade(place: Place, stack: _Stack) -> Tally:
    with stack.load("image of another version") as (tally, _):
        place.upgrade.run_only("sed -i 's/image: classify-triton")
        place.upgrade.run_only("docker build")
    assert place.engine.docker("inspect", "--format", "{{.Config.Image}}", SERVER) == "classify-triton:0.2.0"
    return tally


def _change_keys(place: Place, stack: _Stack) -> Tally:
    revoked = (place.clone / "ward-7.key").read_text()
    image = place.setting.images[0]
    with stack.load("keys changed") as (tally, _):
        place.containers.run_until("-s reload")
        keys = dict(re.findall(r'^"(.+)" "(.+)";$', (stack.secrets_folder / "keys.map").read_text(), re.MULTILINE))
        (added,) = [key for key, client in keys.items() if client == "ward-8"]

        def says(key: str, status: int) -> bool:
            with Classify(URL, api_key=key) as classify:
                return classify(image)[1] == status

        wait_until(lambda: says(revoked, 403))
        wait_until(lambda: says(added, 200))
        place.containers.run_until("docker compose up -d --wait gateway")  # with the evaluators' map
    return tally


def _add_console(place: Place, stack: _Stack) -> Tally:
    image = place.setting.images[0]
    with stack.load("console added") as (tally, _):
        place.containers.run_until("COMPOSE_FILE=")
        seconds = place.containers.run_until("docker compose up -d --wait")
        place.containers.run_until("/console/classify")  # with the page's curl
    tally.notes.append(f"healthy after {seconds:.0f} s")
    assert _published(place) == {"8443/tcp", "127.0.0.1:3000->3000/tcp"}  # the console publishes no port
    token = (stack.secrets_folder / "console_tokens").read_text().split()[2]

    def ask(method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> tuple[int, str, bytes]:
        request = urllib.request.Request(f"{URL}/console/{path}", body, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.url, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.url or "", error.read()

    status, url, _ = ask("GET", "", {"Accept": "text/html"})
    assert (status, url) == (200, f"{URL}/console/login")
    assert ask("GET", "version", {"X-API-Key": stack.key})[0] == 401
    bearer = {"Authorization": f"Bearer {token}"}
    body = json.dumps({"images": [base64.b64encode(image.read_bytes()).decode()]}).encode()
    status, _, text = ask("POST", "classify", {**bearer, "Content-Type": "application/json"}, body)
    with Classify(URL, api_key=stack.key) as classify:
        ((entry,), _) = classify(image)
    assert (status, json.loads(text)[0]["Label"]) == (200, entry["Label"])
    status, _, text = ask("GET", "base-set", bearer)
    assert status == 200, text
    name = json.loads(text)["images"][0]
    status, _, text = ask("GET", f"thumbnails/{urllib.parse.quote(name)}", bearer)
    assert (status, text[:4]) == (200, b"RIFF"), text
    status, _, text = ask("DELETE", f"base-set/{urllib.parse.quote(name)}", bearer)
    assert status == 403, text
    inspected = place.engine.docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", GATEWAY)
    gateways = {network["IPAddress"] for network in json.loads(inspected).values()}
    lines = [line for line in place.engine.docker("logs", CONSOLE).splitlines() if line.startswith("{")]
    visitors = {json.loads(line)["address"] for line in lines}
    assert visitors
    assert not visitors & gateways, "the console takes the gateway for its visitor"
    return tally


def _send_alerts(place: Place, stack: _Stack) -> Tally:
    alerting, alertmanager = re.findall(
        r"^```yaml\n(.*?)^```$", (HOW_TO / "monitor.md").read_text(), re.MULTILINE | re.DOTALL
    )
    deploy = place.clone / "deploy"
    with (deploy / "monitoring" / "prometheus.yml").open("a") as configuration:
        configuration.write(alerting)
    (deploy / "secrets" / "alertmanager.yml").write_text(alertmanager)
    override = deploy / "compose.override.yaml"
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (HOW_TO / "containers.md").read_text(), re.MULTILINE | re.DOTALL)
    merged: dict[str, Any] = {}
    for block in blocks:
        for section, entries in yaml.safe_load(block).items():
            merged.setdefault(section, {}).update(entries)
    override.write_text(yaml.safe_dump(merged))
    with (deploy / ".env").open("a") as variables:  # as the page has it, for who has the console
        variables.write(f"COMPOSE_FILE={':'.join(str(deploy / name) for name in COMPOSE_FILES)}\n")
    with stack.load("alertmanager added") as (tally, _):
        place.containers.run_rest()
    address = _prometheus(place)
    wait_until(lambda: bool(_get(f"{address}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]))
    return tally


def _stop_server(place: Place, stack: _Stack) -> Tally:
    with stack.load("server stopped and started") as (tally, _):
        time.sleep(2)
        began_s = time.monotonic()
        stack.compose("stop", "server")
        took_s = time.monotonic() - began_s
        code = exit_code(place.engine, SERVER)
        stack.compose("up", "--detach", "--wait", "server")
    assert code == 0, f"SIGTERM ended the server with code {code}"
    tally.notes.append(f"SIGTERM: exit code {code} after {took_s:.1f} s")
    return tally


def _ask_every_rule(place: Place, prometheus: str) -> None:
    """Prometheus reads the server, and has evaluated each rule without an error."""

    def rules() -> list[dict[str, Any]]:
        return [rule for group in _get(f"{prometheus}/api/v1/rules")["data"]["groups"] for rule in group["rules"]]

    wait_until(lambda: all(rule["health"] == "ok" for rule in rules()), timeout_s=60)
    known = {rule["name"] for rule in rules()}
    text = yaml.safe_load((place.clone / "deploy" / "monitoring" / "rules.yml").read_text())
    assert known == {rule.get("record") or rule.get("alert") for group in text["groups"] for rule in group["rules"]}
    wait_until(
        lambda: [row["value"][1] for row in monitoring.query(prometheus, 'up{job="classify"}')] == ["1"], timeout_s=60
    )
    assert monitoring.query(prometheus, "classify_images_total")


def _prometheus(place: Place) -> str:
    return f"http://{place.engine.address(PROMETHEUS)}:9090"


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def wait_until(done: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until something has happened."""
    deadline_s = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s"
        time.sleep(0.2)
