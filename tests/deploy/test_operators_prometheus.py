"""The metrics that Kubernetes scrapes and scales by, in a real Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import yaml

from inference_server.triton.process import RunningServer
from tests import monitoring
from tests.deploy.manifests import KUBERNETES, Manifest, find_manifest


def test_autoscaler_asks_for_the_metric_that_the_adapters_rule_makes_of_tritons(
    rendered: dict[str, list[Manifest]], clustering_server: RunningServer, tmp_path: Path
) -> None:
    (rule,) = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    scaler = find_manifest(rendered["volume"], "HorizontalPodAutoscaler", "inference-server")["spec"]
    names = [metric["pods"]["metric"]["name"] for metric in scaler["metrics"] if metric["type"] == "Pods"]
    assert names == [rule["name"]["as"]]
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    assert re.match(rule["name"]["matches"], rule["seriesQuery"].partition("{")[0])
    target = clustering_server.metrics_url.removeprefix("http://").removesuffix("/metrics")
    # The address stands for the operator's labels, namespace and pod.
    text = (
        rule["metricsQuery"].replace("<<.LabelMatchers>>", f'instance="{target}"').replace("<<.GroupBy>>", "instance")
    )
    with monitoring.running_prometheus(tmp_path, [target]) as prometheus:
        deadline_s = time.monotonic() + 60
        while not (series := monitoring.query(prometheus, text)):
            assert time.monotonic() < deadline_s, f"no data: {text}"
            time.sleep(0.2)
        counted = monitoring.query(prometheus, f'{rule["seriesQuery"].partition("{")[0]}{{model="classifier"}}')
    assert [result["metric"] for result in series] == [{"instance": target}]
    assert float(series[0]["value"][1]) >= 0
    assert len(counted) == 1


def test_operators_rules_and_dashboard_are_those_of_the_plain_prometheus(rendered: dict[str, list[Manifest]]) -> None:
    rules = find_manifest(rendered["monitoring"], "PrometheusRule", "classify")
    assert rules["spec"] == yaml.safe_load((monitoring.MONITORING / "rules.yml").read_text())
    dashboard = find_manifest(rendered["monitoring"], "ConfigMap", "classify-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert [json.loads(text) for text in dashboard["data"].values()] == [monitoring.dashboard()]
    chart = {resource["metadata"]["labels"].get("release") for resource in rendered["monitoring"]}
    assert chart == {"kube-prometheus-stack"}


def test_operators_prometheus_has_a_running_pod_under_the_job_that_rules_and_dashboard_name(
    rendered: dict[str, list[Manifest]], tmp_path: Path
) -> None:
    (endpoint,) = find_manifest(rendered["monitoring"], "ServiceMonitor", "inference-server")["spec"]["endpoints"]
    fields = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    job = {
        "job_name": "serviceMonitor/classify/inference-server/0",  # the operator's name for it
        "static_configs": [
            {"targets": [f"{phase}:8002"], "labels": {"__meta_kubernetes_pod_phase": phase}}
            for phase in ("Running", "Pending")
        ],
        "relabel_configs": [
            {"target_label": "job", "replacement": "inference-server"},  # the operator names the job after the Service
            *(
                {fields.get(name, name): value for name, value in relabeling.items()}
                for relabeling in endpoint["relabelings"]
            ),
        ],
    }
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text(yaml.safe_dump({"scrape_configs": [job]}))
    command = ["promtool", "check", "service-discovery", "--timeout=1s", str(configuration), str(job["job_name"])]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    kept = [scraped["labels"] for scraped in json.loads(result.stdout) if scraped["labels"]]
    assert [(labels["instance"], labels["job"]) for labels in kept] == [("Running:8002", "classify")]
    jobs = {
        name
        for expression in [*monitoring.rule_expressions(), *monitoring.panel_expressions()]
        for name in re.findall(r'job="([^"]+)"', expression.text)
    }
    assert jobs == {"classify"}
