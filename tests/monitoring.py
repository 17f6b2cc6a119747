"""Asks a Prometheus for every expression of ``deploy/monitoring``: ``python -m tests.monitoring http://host:9090``."""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from inference_server.addresses import LOOPBACK
from inference_server.triton.process import free_ports, start_child, stop

MONITORING = Path(__file__).parents[1] / "deploy" / "monitoring"
START_TIMEOUT_S = 20.0
# A day of traffic, asked for within seconds.
HASTE = {"15s": "1s", "offset 1d": "offset 2s", ">= 200": ">= 1"}
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*", "${datasource}": "prometheus"}
_COMPARISON = re.compile(r"\s*(==|>=|>)\s*[\d.]+$")


@dataclass(frozen=True)
class Expression:
    """One query.

    Attributes:
        source: The rule's name, or the dashboard panel's title.
        text: The query in PromQL, without variables.
    """

    source: str
    text: str


def dashboard() -> dict[str, Any]:
    """Read the Grafana dashboard."""
    content: dict[str, Any] = json.loads((MONITORING / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    return content


def panel_expressions() -> list[Expression]:
    """List the queries of the dashboard's panels and instance variable."""
    return [
        Expression(panel["title"], _substitute(target["expr"], VARIABLES))
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]


def rule_expressions() -> list[Expression]:
    """List the expressions of the recording rules, and both sides of the alerts' comparisons."""
    expressions = []
    for group in yaml.safe_load((MONITORING / "rules.yml").read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            if "record" in rule:
                expressions += [Expression(rule["record"], rule["expr"]), Expression(rule["record"], rule["record"])]
            else:
                parts = re.sub(r"^absent\((.*)\)$", r"\1", rule["expr"]).split(" and ")
                expressions += [Expression(rule["alert"], _COMPARISON.sub("", part)) for part in parts]
    return expressions


def hasten(text: str) -> str:
    """Shorten the times for a test."""
    return _substitute(text, HASTE)


def query(prometheus: str, text: str) -> list[dict[str, Any]]:
    """Evaluate an expression now.

    Args:
        prometheus: Prometheus's URL.
        text: The expression, in PromQL.

    Returns:
        The series, each with its labels and value.
    """
    body = urllib.parse.urlencode({"query": text}).encode()
    with urllib.request.urlopen(f"{prometheus}/api/v1/query", body, timeout=10) as answer:
        result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return result


def has_value(series: list[dict[str, Any]]) -> bool:
    """Say whether any series holds a number."""
    return any(not math.isnan(float(sample["value"][1])) for sample in series)


def describe(series: list[dict[str, Any]]) -> str:
    """Say the number of series, and the first one's labels and value."""
    if not series:
        return "NO DATA"
    labels = ", ".join(f"{name}={value}" for name, value in series[0]["metric"].items() if name != "__name__")
    return f"{len(series)} series, {{{labels}}} {float(series[0]['value'][1]):.4g}"


@contextlib.contextmanager
def running_prometheus(folder: Path, targets: list[str], watching: Sequence[str] = ()) -> Iterator[str]:
    """Run a Prometheus with a hastened copy of the configuration.

    Args:
        folder: Folder for the copy, the data and the log.
        targets: ``host:port`` of each server's metrics.
        watching: ``host:port`` of the metrics of ``--watch_base_data``.

    Yields:
        Its URL.
    """
    for name in ("prometheus.yml", "rules.yml"):
        (folder / name).write_text(hasten((MONITORING / name).read_text(encoding="utf-8")), encoding="utf-8")
    for name, listed in (("targets.yml", targets), ("base-set-targets.yml", watching)):
        (folder / name).write_text(yaml.safe_dump([{"targets": [*listed]}]), encoding="utf-8")
    binary = shutil.which("prometheus")
    assert binary is not None, "apt-get install prometheus"
    (port,) = free_ports(1)
    url = f"http://{LOOPBACK}:{port}"
    command = [binary, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
               f"--web.listen-address={LOOPBACK}:{port}"]  # fmt: skip
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = start_child(command, output=output)
    try:
        _wait_until_ready(url, process, log)
        yield url
    finally:
        stop(process)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/-/ready", timeout=2):
            return
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < deadline_s, log.read_text(encoding="utf-8")
        time.sleep(0.1)


def _substitute(text: str, replacements: dict[str, str]) -> str:
    for name, value in replacements.items():
        text = text.replace(name, value)
    return text


def main() -> int:
    """Print every expression with a running Prometheus's answer; exit with 1 if an expression has no value."""
    (prometheus,) = sys.argv[1:]
    empty = 0
    for expression in (*panel_expressions(), *rule_expressions()):
        series = query(prometheus, expression.text)
        empty += not has_value(series)
        print(f"{expression.source}\n  {expression.text}\n  {describe(series)}")
    return min(empty, 1)


if __name__ == "__main__":
    sys.exit(main())
