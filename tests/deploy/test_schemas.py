"""Every file of ``deploy/`` follows the schema of its kind, and a broken one is refused."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import monitoring
from tests.deploy.manifests import (
    CPU_DOCKERFILE,
    DEPLOY,
    DOCKERFILE,
    Manifest,
    RefusedError,
    check_compose,
    compose_file,
    hadolint,
    validate,
    yaml_blocks,
)


@pytest.mark.slow
def test_every_manifest_follows_the_schema_of_its_kind(rendered: dict[str, list[Manifest]]) -> None:
    print()
    for overlay, manifests in rendered.items():
        for resource in manifests:
            against = validate(resource)
            name = f"{resource['kind']}/{resource['metadata']['name']}"
            print(f"{overlay:<13}{name:<48} valid: {against}")


def test_compose_file_follows_the_specification_and_a_misspelt_field_is_refused(tmp_path: Path) -> None:
    for name in ("compose.yaml", "compose.console.yaml"):
        result = check_compose(DEPLOY / name)
        print(f"\n{name}: {result.stdout.strip()}")
        assert result.returncode == 0, result.stdout + result.stderr
    broken = compose_file()
    broken["services"]["server"]["read_olny"] = True
    file = tmp_path / "compose.yaml"
    file.write_text(yaml.safe_dump(broken))
    result = check_compose(file)
    assert result.returncode == 1
    assert "read_olny" in result.stdout


def test_dockerfiles_pass_hadolint_and_a_floating_tag_does_not(tmp_path: Path) -> None:
    for dockerfile in (DOCKERFILE, CPU_DOCKERFILE):
        result = hadolint(dockerfile)
        print(f"\n{dockerfile.name}: hadolint {result.stdout.strip() or 'has nothing to say'}")
        assert result.returncode == 0, result.stdout + result.stderr
    broken = tmp_path / "Dockerfile"
    broken.write_text(DOCKERFILE.read_text().replace("tritonserver:${TRITON}", "tritonserver:latest"))
    result = hadolint(broken)
    assert result.returncode == 1
    assert "DL3007" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overlay", "kind", "path", "value"),
    [
        pytest.param("volume", "Deployment", "spec.template.spec.containers.0.resorces", {}, id="misspelt-field"),
        pytest.param("volume", "PodDisruptionBudget", "spec.maxUnavailble", 1, id="misspelt-in-budget"),
        pytest.param("volume", "HorizontalPodAutoscaler", "spec.minReplicas", "two", id="wrong-type"),
        pytest.param("volume", "NetworkPolicy", "spec.ingres", [], id="misspelt-in-policy"),
        pytest.param("monitoring", "ServiceMonitor", "spec.endpoints.0.prot", "metrics", id="misspelt-in-monitor"),
        pytest.param("monitoring", "PrometheusRule", "spec.groups.1.rules.0.form", "1m", id="misspelt-in-rule"),
        pytest.param("kserve", "InferenceService", "spec.predictor.maxReplica", 3, id="misspelt-in-kserve"),
        pytest.param("kserve", "InferenceService", "spec.predictor.scaleTarget", "75", id="wrong-type-in-kserve"),
        pytest.param("kserve", "InferenceService", "spec.predictor.containers.0.arg", [], id="misspelt-in-its-pod"),
    ],
)
def test_broken_manifest_is_refused(
    rendered: dict[str, list[Manifest]], overlay: str, kind: str, path: str, value: Any
) -> None:
    broken = copy.deepcopy(next(resource for resource in rendered[overlay] if resource["kind"] == kind))
    *parents, last = path.split(".")
    place: Any = broken
    for step in parents:
        place = place[int(step)] if step.isdecimal() else place[step]
    place[last] = value
    with pytest.raises(RefusedError, match=last):
        validate(broken)


def test_samples_of_the_pages_are_what_compose_and_prometheus_take(tmp_path: Path) -> None:
    overrides = yaml_blocks("containers.md")
    assert len(overrides) == 2
    for text in overrides:
        file = tmp_path / "compose.override.yaml"
        file.write_text(text)
        result = check_compose(file)
        assert result.returncode == 0, result.stdout + result.stderr
    alertmanager = yaml.safe_load(overrides[1])["services"]["alertmanager"]
    assert set(alertmanager["networks"]) & set(compose_file()["services"]["prometheus"]["networks"])
    alerting, notification = yaml_blocks("monitor.md")
    folder = shutil.copytree(monitoring.MONITORING, tmp_path / "monitoring")
    with (folder / "prometheus.yml").open("a") as file_:
        file_.write(alerting)
    command = ["promtool", "check", "config", str(folder / "prometheus.yml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (target,) = yaml.safe_load(alerting)["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert target == "alertmanager:9093"
    severities = {
        rule["labels"]["severity"]
        for group in yaml.safe_load((folder / "rules.yml").read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    route = yaml.safe_load(notification)["route"]
    routed = {name for child in route["routes"] for name in re.findall(r'severity="(\w+)"', str(child["matchers"]))}
    assert routed < severities  # what remains goes to the first receiver
