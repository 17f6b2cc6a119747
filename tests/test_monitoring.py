"""An operator's view: metrics, rules and dashboard, with a real Prometheus on a real server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_client import Classify
from inference_export.repository.configs import MODELS
from inference_export.template import load_served_module
from inference_server.addresses import LOOPBACK
from inference_server.base_set.watch_metrics import WatchMetrics
from inference_server.supervision.checking import HEALTH_CHECK, check
from inference_server.triton.process import RunningServer, free_ports, running_server
from tests.metrics import settled_metrics
from tests.monitoring import (
    MONITORING,
    Expression,
    dashboard,
    describe,
    has_value,
    hasten,
    panel_expressions,
    query,
    rule_expressions,
    running_prometheus,
)

DOCS = MONITORING.parents[1] / "docs"
SCRAPES_S = 40  # 6 on an idle machine
SPANS_S = 10
KEY = "X-Admin-Key"


class Collector(ThreadingHTTPServer):
    """Takes traces as an OpenTelemetry collector does, over HTTP in JSON."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        super().__init__((LOOPBACK, 0), _Receiver)


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.spans += [
            span for resource in sent["resourceSpans"] for scope in resource["scopeSpans"] for span in scope["spans"]
        ]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def server(workspace: Path, small_clustering: Path, collector: Collector) -> Iterator[RunningServer]:
    traces = (
        "mode=opentelemetry", f"opentelemetry,url=http://{LOOPBACK}:{collector.server_port}/v1/traces",
        "rate=1", "level=TIMESTAMPS", "opentelemetry,bsp_schedule_delay=200",
    )  # fmt: skip
    arguments = ["--metrics-config=summary_latencies=true", *(f"--trace-config={setting}" for setting in traces)]
    with running_server(small_clustering, log=workspace / "monitored.log", arguments=arguments) as running:
        yield running


@pytest.fixture
def prometheus(server: RunningServer, query_images: list[Path], tmp_path: Path) -> Iterator[str]:
    """A Prometheus during every kind of request."""
    done = threading.Event()

    def send() -> None:
        while not done.is_set():
            _send_every_kind(server, query_images)
            done.wait(0.3)

    target = server.metrics_url.removeprefix("http://").removesuffix("/metrics")
    watch = WatchMetrics()
    (port,) = free_ports(1)
    with (
        watch.served(LOOPBACK, port),
        running_prometheus(tmp_path, [target], [f"{LOOPBACK}:{port}"]) as url,
        ThreadPoolExecutor(1) as pool,
    ):
        sending = pool.submit(send)
        yield url
        done.set()
        sending.result()


def _send_every_kind(server: RunningServer, images: list[Path]) -> None:
    with Classify(server.url, client_id="ward 7") as classify:
        assert classify(images)[1] == 200
        assert classify([images[0], b"no image"])[1] == 207
        assert classify([b"no image", b""])[1] == 400
    assert _infer(server, images[0].read_bytes(), sim_thres=7) == 400


def _infer(server: RunningServer, file: bytes, *, headers: dict[str, str] | None = None, **parameters: Any) -> int:
    inputs = [{"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": [b64encode(file).decode()]}]
    body = json.dumps({"inputs": inputs, "parameters": parameters}).encode()
    try:
        request = urllib.request.Request(f"{server.url}/v2/models/ensemble/infer", body, headers or {})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def _metrics(server: RunningServer) -> str:
    return settled_metrics(server.metrics_url)


def _watch_metrics() -> str:
    from prometheus_client import generate_latest

    return str(generate_latest(WatchMetrics().registry).decode())


def _value(text: str, series: str) -> float:
    sample = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(sample[1]) if sample else 0.0


def _promtool(*arguments: object, text: str | None = None) -> subprocess.CompletedProcess[str]:
    binary = shutil.which("promtool")
    assert binary is not None, "apt-get install prometheus"
    command = [binary, *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)


def test_each_image_is_counted_once_by_its_outcome(server: RunningServer, query_images: list[Path]) -> None:
    counted = (
        'classify_images_total{client="counted",label=',
        'classify_undecodable_images_total{reason="unsupported"}',
        'classify_undecodable_images_total{reason="empty"}',
        'classify_refused_requests_total{reason="no_decodable_image"}',
        'classify_refused_requests_total{reason="threshold"}',
        'classify_probability_count{mode="clustering"}',
        "classify_decode_seconds_count",
        "classify_image_bytes_count",
        "classify_image_bytes_sum",
        "classify_not_finite_images_total",
    )
    before = _metrics(server)
    with Classify(server.url, client_id="counted") as classify:
        results, _ = classify([*query_images, b"no image"])
        classify([b"no image", b""])
    _infer(server, query_images[0].read_bytes(), sim_thres=7)
    after = _metrics(server)
    increases = [_value(after, series) - _value(before, series) for series in counted[1:]]
    sent_bytes = sum(image.stat().st_size for image in query_images) + 2 * len(b"no image")
    images = len(query_images)
    assert increases == [2, 1, 1, 1, images, images + 3, images + 3, sent_bytes, 0]
    labels = dict(re.findall(rf'^{counted[0]}"(.*)",mode="clustering"\}} (\d+)$', after, re.MULTILINE))
    given = [result["Label"] for result in results if result["Label"]]
    assert {label: int(number) for label, number in labels.items()} == {label: given.count(label) for label in given}


def test_trace_of_a_request_shows_every_model_under_the_callers_span(
    server: RunningServer, collector: Collector, query_images: list[Path]
) -> None:
    trace_id, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    assert _infer(server, query_images[0].read_bytes(), headers={"traceparent": f"00-{trace_id}-{caller}-01"}) == 200
    wanted = {"InferRequest", "ensemble", *MODELS}
    deadline_s = time.monotonic() + SPANS_S
    while True:
        spans = {span["name"]: span for span in list(collector.spans) if span["traceId"] == trace_id}
        if wanted <= set(spans):
            break
        assert time.monotonic() < deadline_s, set(spans)
        time.sleep(0.1)
    assert spans["InferRequest"]["parentSpanId"] == caller
    assert spans["ensemble"]["parentSpanId"] == spans["InferRequest"]["spanId"]
    assert {spans[model]["parentSpanId"] for model in MODELS} == {spans["ensemble"]["spanId"]}


def test_health_checks_are_counted_and_left_out_of_the_distribution(server: RunningServer) -> None:
    before = _metrics(server)
    host, port = server.url.removeprefix("http://").split(":")
    check(host, int(port))
    after = _metrics(server)
    distribution = 'classify_probability_count{mode="clustering"}'
    assert _value(after, distribution) == _value(before, distribution)
    assert f'classify_images_total{{client="{HEALTH_CHECK}"' in after
    assert HEALTH_CHECK in load_served_module("cluster_head", "parameters").NOT_TRAFFIC


def test_metrics_have_names_and_units_as_prometheus_wants_them(server: RunningServer) -> None:
    ours = [line for line in _metrics(server).splitlines(keepends=True) if "nv_" not in line]
    linted = _promtool("check", "metrics", text="".join(ours) + _watch_metrics())
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_every_metric_is_documented(server: RunningServer, query_images: list[Path]) -> None:
    assert _infer(server, query_images[0].read_bytes()) == 200
    names = set(re.findall(r"^# TYPE (classify_\w+)", _metrics(server) + _watch_metrics(), re.MULTILINE))
    page = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    assert names == set(re.findall(r"`(classify_\w+)`", page))


def test_counts_go_on_when_a_second_version_takes_over(small_clustering: Path, tmp_path: Path) -> None:
    """Both versions count in the same series. The end of the first version removes no series."""
    repository = tmp_path / "repository"
    head = shutil.copytree(small_clustering / "cluster_head", repository / "cluster_head")
    shutil.copytree(head / "1", head / "2")
    config = head / "config.pbtxt"
    arguments = ["--model-control-mode=explicit", "--load-model=*", f"--http-restricted-api=model-repository:{KEY}=k"]
    with running_server(repository, log=tmp_path / "log", arguments=arguments) as running:
        _score(running, 1, ["LABEL"])
        for versions in ("1, 2", "2"):
            text, policies = re.subn(r"versions: \[.*?\]", f"versions: [{versions}]", config.read_text())
            assert policies == 1
            config.write_text(text)
            url = f"{running.url}/v2/repository/models/cluster_head/load"
            urllib.request.urlopen(urllib.request.Request(url, b"{}", {KEY: "k"}), timeout=60).close()
            _score(running, 2, ["LABEL"])
        counted = re.findall(r'classify_images_total\{client="caller",.*\} (\d+)', _metrics(running))
    assert counted == ["3"]


def test_embeddings_scored_again_are_answered_and_not_counted_as_images(server: RunningServer) -> None:
    """Requests for CLASS_AT or all outputs, as from an evaluation's other thresholds or a benchmark of cluster_head."""
    before = _metrics(server)
    _score(server, 1, [])
    _score(server, 1, ["CLASS_AT"])
    assert 'client="caller"' not in _metrics(server)
    distribution = 'classify_probability_count{mode="clustering"}'
    assert _value(_metrics(server), distribution) == _value(before, distribution)


def _score(server: RunningServer, version: int, outputs: list[str]) -> None:
    tensors: dict[str, Any] = {
        "EMBEDDING": ("FP32", [0.1] * 512),
        "PROBABILITIES": ("FP32", [0.5, 0.3, 0.2]),
        "ERROR": ("BYTES", [""]),
    }
    inputs = [
        {"name": name, "shape": [1, len(data)], "datatype": datatype, "data": data}
        for name, (datatype, data) in tensors.items()
    ]
    wanted = [{"name": name} for name in outputs]
    body = json.dumps({"inputs": inputs, "outputs": wanted, "parameters": {"x-client-id": "caller"}}).encode()
    url = f"{server.url}/v2/models/cluster_head/versions/{version}/infer"
    with urllib.request.urlopen(url, body, timeout=20) as answer:
        assert answer.status == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [("check", "config", "prometheus.yml"), ("check", "rules", "rules.yml"),
                  ("test", "rules", "rules.test.yml")], ids=lambda arguments: arguments[-1]
)  # fmt: skip
def test_promtool_accepts(arguments: tuple[str, ...]) -> None:
    done = _promtool(*arguments[:-1], MONITORING / arguments[-1])
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_shown_firing_and_not_firing_and_has_a_runbook() -> None:
    groups = yaml.safe_load((MONITORING / "rules.yml").read_text(encoding="utf-8"))["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    shown = {
        (case["alertname"], bool(case["exp_alerts"]))
        for test in yaml.safe_load((MONITORING / "rules.test.yml").read_text(encoding="utf-8"))["tests"]
        for case in test["alert_rule_test"]
    }
    assert shown == {(alert["alert"], fires) for alert in alerts for fires in (True, False)}
    page = (DOCS / "how-to" / "monitor.md").read_text(encoding="utf-8")
    for alert in alerts:
        assert "$value" in alert["annotations"]["description"], alert
        assert alert["annotations"]["runbook"] == f"docs/how-to/monitor.md#{alert['alert'].lower()}"
        assert f"### {alert['alert']}\n" in page


def test_every_expression_of_rules_and_dashboard_returns_data(prometheus: str) -> None:
    """With ``-s``, prints each panel and rule with its query and value."""
    expressions = [*panel_expressions(), *rule_expressions()]
    values: dict[Expression, str] = {}
    deadline_s = time.monotonic() + SCRAPES_S
    while len(values) < len(set(expressions)) and time.monotonic() < deadline_s:
        time.sleep(0.5)
        for expression in set(expressions) - set(values):
            series = query(prometheus, hasten(expression.text))
            if has_value(series):
                values[expression] = describe(series)
    for expression in expressions:
        print(f"{expression.source}\n  {hasten(expression.text)}\n  {values.get(expression, 'NO DATA')}")
    assert not set(expressions) - set(values)


def test_dashboard_is_what_grafana_needs() -> None:
    content = dashboard()
    sources = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())
    variables = {variable["name"]: variable for variable in content["templating"]["list"]}
    assert sources["datasources"][0]["type"] == variables["datasource"]["query"] == "prometheus"
    assert content["schemaVersion"] >= 39
    panels = content["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    filled: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & filled, f"{panel['title']} lies over another panel"
        filled |= cells
        if panel["type"] == "row":
            continue
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= {"instance", "__rate_interval"}
