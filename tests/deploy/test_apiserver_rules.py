"""The rules beyond the schemas refuse what a Kubernetes apiserver refuses, and pass what it takes."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import pytest

from tests.deploy import apiserver_rules
from tests.deploy.apiserver_rules import quantity, refusals
from tests.deploy.manifests import Manifest, RefusedError, find_manifest, validate

POD = "spec.template.spec"
CONTAINER = f"{POD}.containers.0"
SERVER, GATEWAY = ("Deployment", "inference-server"), ("Deployment", "gateway")
POLICY, SCALER = ("NetworkPolicy", "gateway"), ("HorizontalPodAutoscaler", "inference-server")
TWO_PORTS = [{"name": "a", "port": 1}, {"name": "b", "port": 1}]

# Kind and name, what is set where, and words of the refusal. None removes.
BROKEN: dict[str, tuple[tuple[str, str], dict[str, Any], str]] = {
    "no-pod-can-be-replaced": (GATEWAY, {"spec.strategy.rollingUpdate.maxSurge": 0}, "maxSurge and maxUnavailable"),
    "no-percent-can-be-replaced": (
        SERVER, {"spec.strategy.rollingUpdate": {"maxSurge": "0%", "maxUnavailable": 0}}, "maxSurge and maxUnavailable"
    ),
    "recreate-that-rolls": (SERVER, {"spec.strategy.type": "Recreate"}, "Recreate has no rollingUpdate"),
    "selector-of-others": (SERVER, {"spec.selector.matchLabels": {"app": "other"}}, "does not match the template's"),
    "selector-of-all": (SERVER, {"spec.selector.matchLabels": {}}, "selector is empty"),
    "pod-that-ends": (SERVER, {f"{POD}.restartPolicy": "Never"}, "restartPolicy"),
    "request-above-limit": (SERVER, {f"{CONTAINER}.resources.requests.memory": "5Gi"}, "memory is above its limit 4Gi"),
    "request-above-limit-in-other-units": (
        SERVER, {f"{CONTAINER}.resources.requests.cpu": "2001m"}, "2001m of cpu is above its limit 2"
    ),
    "no-quantity": (SERVER, {f"{CONTAINER}.resources.limits.memory": "4GB"}, "limits.memory 4GB is no quantity"),
    "gpu-without-limit": (SERVER, {f"{CONTAINER}.resources.requests": {"nvidia.com/gpu": 1}}, "needs a limit"),
    "gpu-lent": (
        SERVER,
        {f"{CONTAINER}.resources": {"requests": {"nvidia.com/gpu": 1}, "limits": {"nvidia.com/gpu": 2}}},
        "request has to be the limit",
    ),
    "half-a-gpu": (SERVER, {f"{CONTAINER}.resources.limits": {"nvidia.com/gpu": "500m"}}, "whole numbers"),
    "ports-of-one-name": (SERVER, {f"{CONTAINER}.ports.1.name": "http"}, "2 ports are called http"),
    "port-name-too-long": (SERVER, {f"{CONTAINER}.ports.1.name": "metrics-of-triton"}, "more than 15"),
    "port-name-without-letter": (SERVER, {f"{CONTAINER}.ports.1.name": "8002"}, "with a letter"),
    "port-that-is-none": (SERVER, {f"{CONTAINER}.ports.0.containerPort": 80800}, "port 80800 does not exist"),
    "variables-of-one-name": (
        SERVER, {f"{CONTAINER}.env": [{"name": "A"}, {"name": "A"}]}, "variables are called A"
    ),
    "volumes-of-one-name": (SERVER, {f"{POD}.volumes.0.name": "temporary"}, "2 volumes are called temporary"),
    "volume-of-two-kinds": (SERVER, {f"{POD}.volumes.1.configMap": {"name": "gateway"}}, "has 2 sources"),
    "volume-of-no-size": (SERVER, {f"{POD}.volumes.1.emptyDir.sizeLimit": "half"}, "sizeLimit half"),
    "mount-of-no-volume": (SERVER, {f"{CONTAINER}.volumeMounts.0.name": "models2"}, "is a mount of models2"),
    "mounts-at-one-path": (SERVER, {f"{CONTAINER}.volumeMounts.1.mountPath": "/models"}, "2 mounts are at /models"),
    "container-of-no-name": (SERVER, {f"{CONTAINER}.name": "Server"}, "no DNS label"),
    "containers-of-one-name": (
        SERVER, {f"{POD}.initContainers": [{"name": "inference-server"}]}, "2 containers are called inference-server"
    ),
    "probe-of-what-ends": (
        SERVER,
        {f"{POD}.initContainers": [{"name": "fetch", "livenessProbe": {"exec": {"command": ["true"]}}}]},
        "fetch ends, and has livenessProbe",
    ),
    "projected-file-twice": (
        GATEWAY, {f"{POD}.volumes.0.projected.sources.3.secret.items.0.path": "keys.map"}, "path keys.map"
    ),
    "projected-file-outside": (
        GATEWAY, {f"{POD}.volumes.0.projected.sources.2.secret.items.0.path": "../keys.map"}, "leaves the volume"
    ),
    "alive-twice": (SERVER, {f"{CONTAINER}.livenessProbe.successThreshold": 2}, "successThreshold of a livenessProbe"),
    "started-twice": (SERVER, {f"{CONTAINER}.startupProbe.successThreshold": 2}, "successThreshold of a startupProbe"),
    "probe-of-no-time": (SERVER, {f"{CONTAINER}.livenessProbe.timeoutSeconds": 0}, "timeoutSeconds of livenessProbe"),
    "probe-of-nothing": (SERVER, {f"{CONTAINER}.livenessProbe.exec": None}, "livenessProbe has 0 handlers"),
    "probe-of-no-port": (GATEWAY, {f"{CONTAINER}.readinessProbe.tcpSocket.port": "http"}, "asks port http"),
    "hook-of-two-kinds": (SERVER, {f"{CONTAINER}.lifecycle.preStop.sleep": {"seconds": 10}}, "preStop has 2 handlers"),
    "fewest-above-most": (SCALER, {"spec.minReplicas": 11}, "between 1 and maxReplicas, 10"),
    "metric-of-another-type": (SCALER, {"spec.metrics.0.type": "Object"}, "type Object has no such source"),
    "target-of-another-type": (
        SCALER, {"spec.metrics.0.pods.target": {"type": "Value", "value": "4"}}, "the target of Pods has to have"
    ),
    "budget-of-two-kinds": (("PodDisruptionBudget", "gateway"), {"spec.minAvailable": 1}, "are both set"),
    "budget-above-all": (("PodDisruptionBudget", "gateway"), {"spec.maxUnavailable": "110%"}, "110% is neither"),
    "service-ports-of-one-name": (("Service", "inference-server"), {"spec.ports.1.name": "http"}, "2 ports are called"),
    "service-ports-of-one-number": (("Service", "inference-server"), {"spec.ports": TWO_PORTS}, "the number 1/TCP"),
    "service-port-without-name": (("Service", "inference-server"), {"spec.ports.1.name": None}, "has no name"),
    "service-port-that-is-none": (("Service", "gateway"), {"spec.ports.0.port": 0}, "port 0 does not exist"),
    "service-target-of-no-name": (("Service", "gateway"), {"spec.ports.0.targetPort": "https_port"}, "single hyphens"),
    "headless-with-an-address": (("Service", "inference-server"), {"spec.type": "LoadBalancer"}, "clusterIP is None"),
    "service-with-a-digit-first": (("Service", "gateway"), {"metadata.name": "1-gateway"}, "is not one of Service"),
    "name-with-capitals": (GATEWAY, {"metadata.name": "Gateway"}, "is not one of Deployment"),
    "label-with-a-space": (GATEWAY, {"metadata.labels.owner": "ward 7"}, "label owner has the value 'ward 7'"),
    "longer-than-kubectl-keeps": (GATEWAY, {"metadata.annotations": {"a": "x" * 262144}}, "too long for kubectl apply"),
    "policy-port-of-no-name": (POLICY, {"spec.ingress.0.ports.0.port": "https-of-the-gateway"}, "more than 15"),
    "policy-ports-backwards": (POLICY, {"spec.egress.1.ports.0.endPort": 52}, "ports 53 to 52"),
    "policy-range-of-a-name": (POLICY, {"spec.ingress.0.ports.0.endPort": 9000}, "which only numbers have"),
    "policy-of-two-kinds": (
        POLICY, {"spec.egress.0.to.0.ipBlock": {"cidr": "10.0.0.0/8"}}, "one of addresses or of selectors"
    ),
    "policy-of-no-address": (POLICY, {"spec.egress.0.to.0": {"ipBlock": {"cidr": "10.0.0/8"}}}, "ipBlock: "),
    "policy-except-elsewhere": (
        POLICY, {"spec.egress.0.to.0": {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}}}, "not within"
    ),
    "claim-of-no-size": (("PersistentVolumeClaim", "exports"), {"spec.resources": {}}, "needs a size"),
    "claim-of-no-mode": (("PersistentVolumeClaim", "exports"), {"spec.accessModes": []}, "needs accessModes"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_manifest_that_an_apiserver_refuses_is_refused(rendered: dict[str, list[Manifest]], case: str) -> None:
    (kind, name), changes, complaint = BROKEN[case]
    manifest = copy.deepcopy(find_manifest(rendered["volume"], kind, name))
    assert refusals(manifest) == []
    for path, value in changes.items():
        _change(manifest, path, value)
    assert any(complaint in refusal for refusal in refusals(manifest)), refusals(manifest)


def test_file_name_that_no_volume_can_have_is_refused(rendered: dict[str, list[Manifest]]) -> None:
    manifest = copy.deepcopy(next(each for each in rendered["volume"] if each["kind"] == "ConfigMap"))
    manifest["data"]["tls/server.crt"] = ""
    assert any("no name of a key" in refusal for refusal in refusals(manifest))


@pytest.mark.parametrize("path", ["spec.predictor.minReplicas", "spec.predictor.containers.0.volumeMounts.0.name"])
def test_kserves_service_and_its_pod_follow_the_rules_too(rendered: dict[str, list[Manifest]], path: str) -> None:
    manifest = copy.deepcopy(rendered["kserve"][0])
    _change(manifest, path, 11 if path.endswith("Replicas") else "tmp")
    with pytest.raises(RefusedError, match=r"minReplicas 11 is above|is a mount of tmp"):
        validate(manifest)


@pytest.mark.slow
def test_rollout_that_no_schema_refuses_is_refused_with_every_manifest(rendered: dict[str, list[Manifest]]) -> None:
    manifest = copy.deepcopy(find_manifest(rendered["gpu"], "Deployment", "inference-server"))
    manifest["spec"]["strategy"]["rollingUpdate"] = {"maxSurge": 0, "maxUnavailable": 0}
    with pytest.raises(RefusedError, match="no pod could ever be replaced"):
        validate(manifest)


def test_every_kind_with_rules_is_deployed_and_broken_at_least_once(rendered: dict[str, list[Manifest]]) -> None:
    refused = {kind for (kind, _), _, _ in BROKEN.values()} | {"ConfigMap", "InferenceService", "Pod"}
    assert refused == set(apiserver_rules.KINDS)
    kinds = {manifest["kind"] for manifests in rendered.values() for manifest in manifests}
    assert set(apiserver_rules.KINDS) <= kinds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("500m", "0.5"), ("4Gi", "4294967296"), ("1e3", "1000"), ("2k", "2000"), (".5", "0.5"), ("1E", "1e18"),
        (2, "2"), ("4GB", None), ("-1", None), ("", None), ("1 Gi", None), ("Gi", None), ("1K", None),
    ],
)  # fmt: skip
def test_quantity_is_read_as_kubernetes_reads_it(text: Any, value: str | None) -> None:
    assert quantity(text) == (None if value is None else Decimal(value))


def _change(manifest: Manifest, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    place: Any = manifest
    for step in parents:
        place = place[int(step)] if step.isdecimal() else place[step]
    if value is None:
        del place[last]
    elif isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
