"""``deploy/``: every manifest against the real schema of its kind, and what no schema sees, against the real server."""

from __future__ import annotations

import copy
import json
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
import yaml
from click.testing import CliRunner

from inference_client.version import __version__
from inference_server.__main__ import main as server_main
from inference_server.supervision.checking import check
from inference_server.triton.process import RunningServer, free_ports, start_child
from inference_server.triton.tritonserver import LOOPBACK, ServerError
from tests import monitoring
from tests.gateway import CERTIFICATE
from tests.manifests import (
    DEPLOY,
    INFERENCE_SERVICE,
    KUBERNETES,
    OVERLAYS,
    UPLOAD,
    Manifest,
    RefusedError,
    check_compose,
    compose_file,
    hadolint,
    instructions,
    kubectl,
    manifest,
    render,
    validate,
)
from tests.watched import watched_server

DOCKERFILE = DEPLOY / "Dockerfile"
HOW_TO = DEPLOY.parent / "docs" / "how-to"
CHECK = ["inference-server", "--check"]
# Only the container's Triton, newer than pip's, has these.
NEWER_OPTIONS = ("--http-max-input-size",)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Manifest]]:
    """What ``kubectl apply -k`` would send for each overlay, and the manifests that stand alone."""
    command = kubectl(tmp_path_factory.mktemp("kubectl"))
    overlays = {name: render(command, KUBERNETES / name) for name in OVERLAYS}
    return {**overlays, "by hand": [manifest(UPLOAD)], "kserve": [manifest(INFERENCE_SERVICE)]}


@pytest.fixture(scope="module", params=["volume", "object-store", "gpu"])
def overlay(request: pytest.FixtureRequest, rendered: dict[str, list[Manifest]]) -> list[Manifest]:
    """An overlay that serves."""
    found: list[Manifest] = rendered[request.param]
    return found


def _one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    found = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"] == name]
    assert len(found) == 1, f"{len(found)} of {kind}/{name}"
    return found[0]


def _pod(owner: Manifest) -> dict[str, Any]:
    spec = owner["spec"]
    return dict({"InferenceService": spec.get("predictor"), "Pod": spec}.get(owner["kind"]) or spec["template"]["spec"])


def _pods(rendered: dict[str, list[Manifest]]) -> Iterator[dict[str, Any]]:
    for manifests in rendered.values():
        for each in manifests:
            if each["kind"] in {"Deployment", "InferenceService", "Pod"}:
                yield _pod(each)


def _containers(rendered: dict[str, list[Manifest]]) -> Iterator[dict[str, Any]]:
    for pod in _pods(rendered):
        yield from [*pod.get("initContainers", ()), *pod["containers"]]


def _server_container(owner: Manifest) -> dict[str, Any]:
    names = {"inference-server", "kserve-container"}
    return next(each for each in _pod(owner)["containers"] if each["name"] in names)


def _image_command() -> list[str]:
    last_stage = instructions(DOCKERFILE.read_text())
    found: list[str] = yaml.safe_load(last_stage["CMD"][-1])
    return found


def test_every_manifest_follows_the_schema_of_its_kind(rendered: dict[str, list[Manifest]]) -> None:
    print()
    for overlay, manifests in rendered.items():
        for each in manifests:
            against = validate(each)
            name = f"{each['kind']}/{each['metadata']['name']}"
            print(f"{overlay:<13}{name:<48} valid: {against}")


def test_compose_file_follows_the_specification_and_a_misspelt_field_is_refused(tmp_path: Path) -> None:
    result = check_compose(DEPLOY / "compose.yaml")
    print(f"\ncompose.yaml: {result.stdout.strip()}")
    assert result.returncode == 0, result.stdout + result.stderr
    broken = compose_file()
    broken["services"]["server"]["read_olny"] = True
    file = tmp_path / "compose.yaml"
    file.write_text(yaml.safe_dump(broken))
    result = check_compose(file)
    assert result.returncode == 1
    assert "read_olny" in result.stdout


def test_dockerfile_passes_hadolint_and_a_floating_tag_does_not(tmp_path: Path) -> None:
    result = hadolint(DOCKERFILE)
    print(f"\nDockerfile: hadolint {result.stdout.strip() or 'has nothing to say'}")
    assert result.returncode == 0, result.stdout + result.stderr
    broken = tmp_path / "Dockerfile"
    broken.write_text(DOCKERFILE.read_text().replace("tritonserver:${TRITON}", "tritonserver:latest"))
    result = hadolint(broken)
    assert result.returncode == 1
    assert "DL3007" in result.stdout


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
    broken = copy.deepcopy(next(each for each in rendered[overlay] if each["kind"] == kind))
    *parents, last = path.split(".")
    place: Any = broken
    for step in parents:
        place = place[int(step)] if step.isdecimal() else place[step]
    place[last] = value
    with pytest.raises(RefusedError, match=last):
        validate(broken)


def test_every_image_has_an_exact_tag(rendered: dict[str, list[Manifest]]) -> None:
    images = {each["image"] for each in _containers(rendered)}
    images |= {service["image"] for service in compose_file()["services"].values()}
    (triton,) = re.findall(r"^ARG TRITON=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    images.add(f"nvcr.io/nvidia/tritonserver:{triton}")
    for image in images:
        tag = image.rpartition(":")[2]
        assert re.match(r"v?\d+\.\d+", tag), image
    ours = {image.rpartition(":")[2] for image in images if "classify-triton" in image}
    assert ours == {__version__}


def test_every_container_passes_the_restricted_standard_and_is_read_only(rendered: dict[str, list[Manifest]]) -> None:
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "name"}
    for pod in _pods(rendered):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for volume in pod["volumes"]:
            assert set(volume) <= allowed
    for container in _containers(rendered):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][kind]), container["name"]


def test_every_compose_service_is_restricted_and_only_the_gateway_is_reached_from_outside() -> None:
    compose = compose_file()
    reachable = {}
    for name, service in compose["services"].items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"])
        assert "healthcheck" in service or name == "server"  # whose image has one
        assert "environment" not in service or not any(
            re.search("PASSWORD$|KEY$|TOKEN$|SECRET$", variable) for variable in service["environment"]
        )
        reachable[name] = [port for port in service.get("ports", ()) if not port.startswith("127.0.0.1:")]
    assert {name for name, ports in reachable.items() if ports} == {"gateway"}
    assert compose["networks"]["servers"] == {"internal": True}
    assert compose["services"]["server"]["networks"] == ["servers"]
    (models,) = compose["services"]["server"]["volumes"]
    assert models["read_only"] is True
    assert models["target"] == "/models"


def test_files_that_compose_mounts_exist_and_their_names_agree_with_the_gateway_and_prometheus() -> None:
    compose = compose_file()
    for name, config in compose["configs"].items():
        assert (DEPLOY / config["file"]).is_file(), name  # a config's content can't be put into a read-only container
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            assert not source.startswith("./") or (DEPLOY / source).exists(), source
    gateway = compose["services"]["gateway"]
    beside = {Path(each["target"]).name for each in [*gateway["configs"], *gateway["secrets"]]}
    assert beside == {"nginx.conf", "checks.conf", "proxy.conf", "servers.conf", "keys.map", "server.crt", "server.key"}
    assert re.findall(r"^server (\S+)", (DEPLOY / "compose" / "servers.conf").read_text(), re.MULTILINE) == [
        "server:8080"
    ]
    assert yaml.safe_load((DEPLOY / "compose" / "targets.yml").read_text()) == [{"targets": ["server:8002"]}]
    mounted = {Path(each["target"]).name for each in compose["services"]["prometheus"]["configs"]}
    prometheus = yaml.safe_load((DEPLOY / "monitoring" / "prometheus.yml").read_text())
    wanted = {*prometheus["rule_files"], *prometheus["scrape_configs"][0]["file_sd_configs"][0]["files"]}
    assert mounted == {"prometheus.yml", *wanted}
    (source,) = yaml.safe_load(
        (DEPLOY / "monitoring" / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_ports_names_and_selectors_agree(overlay: list[Manifest]) -> None:
    for name in ("inference-server", "gateway"):
        deployment = _one(overlay, "Deployment", name)
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        service = _one(overlay, "Service", name)["spec"]
        selectors = [
            service["selector"],
            deployment["spec"]["selector"]["matchLabels"],
            _one(overlay, "PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"],
            _one(overlay, "NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"],
            *(each["labelSelector"]["matchLabels"] for each in _pod(deployment)["topologySpreadConstraints"]),
        ]
        for selector in selectors:
            assert selector.items() <= labels.items()
        assert {port["targetPort"] for port in service["ports"]} <= set(ports)
        admitted = {
            port["port"] for rule in _one(overlay, "NetworkPolicy", name)["spec"]["ingress"] for port in rule["ports"]
        }
        assert admitted == set(ports)
    server = _one(overlay, "Deployment", "inference-server")
    ports = {each["name"]: each["containerPort"] for each in _server_container(server)["ports"]}
    assert ports == {"http": 8080, "metrics": 8002}
    nginx = (DEPLOY / "gateway" / "nginx.conf").read_text()
    (https,) = _pod(_one(overlay, "Deployment", "gateway"))["containers"][0]["ports"]
    assert f"listen {https['containerPort']} ssl" in nginx


def test_gateway_finds_the_server_by_its_service_and_all_its_files(overlay: list[Manifest]) -> None:
    service = _one(overlay, "Service", "inference-server")
    namespace = service["metadata"]["namespace"]
    assert service["spec"]["clusterIP"] == "None"  # else its name has one address, and a lost request nowhere to go
    (http,) = [port["port"] for port in service["spec"]["ports"] if port["name"] == "http"]
    pod = _pod(_one(overlay, "Deployment", "gateway"))
    volume = next(each for each in pod["volumes"] if each["name"] == "configuration")
    names = {source["configMap"]["name"] for source in volume["projected"]["sources"] if "configMap" in source}
    maps = {each["metadata"]["name"]: each["data"] for each in overlay if each["kind"] == "ConfigMap"}
    assert names == set(maps)
    files = {name: text for data in maps.values() for name, text in data.items()}
    paths = {
        item["path"] for source in volume["projected"]["sources"] for item in source.get("secret", {}).get("items", ())
    }
    assert set(files) | paths == {
        "nginx.conf", "checks.conf", "proxy.conf", "servers.conf", "keys.map", "evaluators.map",
        "tls/server.crt", "tls/server.key",
    }  # fmt: skip
    secrets = [source["secret"] for source in volume["projected"]["sources"] if "secret" in source]
    assert [item["path"] for each in secrets if each.get("optional") for item in each["items"]] == ["evaluators.map"]
    upstream = f"server inference-server.{namespace}.svc.cluster.local:{http} resolve"
    assert upstream in files["servers.conf"]


def test_disruption_autoscaling_and_termination_leave_a_server(overlay: list[Manifest]) -> None:
    scaler = _one(overlay, "HorizontalPodAutoscaler", "inference-server")["spec"]
    deployment = _one(overlay, "Deployment", "inference-server")
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]  # each apply would undo what the autoscaler did
    assert scaler["minReplicas"] > _one(overlay, "PodDisruptionBudget", "inference-server")["spec"]["maxUnavailable"]
    from inference_server.supervision.watching import EXIT_TIMEOUT_S, LAST_ANSWERS_S

    container = _server_container(deployment)
    pause_s = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    needed_s = pause_s + EXIT_TIMEOUT_S + LAST_ANSWERS_S
    assert _pod(deployment)["terminationGracePeriodSeconds"] > needed_s
    stop_s = compose_file()["services"]["server"]["stop_grace_period"]
    assert int(stop_s.removesuffix("s")) > EXIT_TIMEOUT_S + LAST_ANSWERS_S


def test_body_limits_of_gateway_and_server_are_the_same(rendered: dict[str, list[Manifest]]) -> None:
    (limit,) = re.findall(r"client_max_body_size (\d+)m;", (DEPLOY / "gateway" / "nginx.conf").read_text())
    option = f"--http-max-input-size={int(limit) << 20}"
    arguments = [_image_command(), *(each["args"] for each in _containers(rendered) if "--" in each.get("args", ()))]
    assert len(arguments) == 5
    for each in arguments:
        assert option in each


def test_image_is_built_from_files_that_exist_and_pins_what_it_installs() -> None:
    text = DOCKERFILE.read_text()
    sources = [word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for word in line.split()]
    assert len(sources) == 8
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text()
    for source in sources:
        assert (DEPLOY.parent / source).exists()
        assert f"\n!{source}\n" in ignored
    assert instructions(text)["USER"] == ["1000:1000"]
    requirements = (DEPLOY / "requirements.txt").read_text()
    pins = dict(re.findall(r"^([a-z-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", requirements, re.MULTILINE))
    assert len(pins) == requirements.count("==")
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)$", (DEPLOY.parent / "constraints.txt").read_text(), re.MULTILINE))
    tested = {name.lower().replace("_", "-"): version for name, version in tested.items()}
    for name, version in pins.items():
        assert tested[name] == version, name


def test_image_installs_all_that_the_server_and_the_models_import(small_clustering: Path) -> None:
    """A stranger's import fails here as it would in the container."""
    script = """
import sys, importlib.metadata as metadata, pathlib
installed = {name.lower().replace('_', '-') for name in sys.argv[1].split(',')}
owners = metadata.packages_distributions()
class Stranger:
    def find_spec(self, name, path=None, target=None):
        top = name.partition('.')[0]
        names = {each.lower().replace('_', '-') for each in owners.get(top, ())}
        if names and not names & installed:
            raise ModuleNotFoundError(name, name=top)
sys.meta_path.insert(0, Stranger())
from inference_server import __main__
from inference_server.reload import command as reload_command
from inference_server.triton.administration import ModelControl
import tritonclient.grpc
for folder in sys.argv[2:]:
    sys.path.insert(0, folder)
import preprocessing, heads
__main__.main(['--check', '--port', '1'])
"""
    names = re.findall(r"^([a-z-]+)==", (DEPLOY / "requirements.txt").read_text(), re.MULTILINE)
    folders = [str(small_clustering / model / "1") for model in ("preprocess", "cluster_head")]
    result = subprocess.run(
        [sys.executable, "-c", script, ",".join([*names, "classify-triton"]), *folders],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "gave no label within 5 s" in result.stderr, result.stderr


def test_every_folder_of_an_export_holds_a_file_so_that_an_object_store_keeps_it(small_clustering: Path) -> None:
    for folder in small_clustering.rglob("*"):
        assert not folder.is_dir() or any(folder.iterdir()), folder


@pytest.fixture(scope="module")
def probes(rendered: dict[str, list[Manifest]]) -> list[tuple[list[str], float]]:
    """Every probe's command with its time limit, the image's health check among them."""
    found = []
    for manifests in rendered.values():
        for each in manifests:
            if each["kind"] in {"Deployment", "InferenceService"} and each["metadata"]["name"] != "gateway":
                container = _server_container(each)
                for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                    found.append((container[probe]["exec"]["command"], container[probe]["timeoutSeconds"]))
    health = instructions(DOCKERFILE.read_text())["HEALTHCHECK"][-1]
    found.append((yaml.safe_load(health.partition("CMD ")[2]), float(re.findall(r"--timeout=(\d+)s", health)[0])))
    return found


def test_server_with_the_manifests_arguments_passes_their_probes_until_a_model_has_died(
    rendered: dict[str, list[Manifest]],
    probes: list[tuple[list[str], float]],
    small_clustering: Path,
    tmp_path: Path,
) -> None:
    served = [_server_container(_one(rendered[name], "Deployment", "inference-server")) for name in OVERLAYS[:3]]
    for container in served:
        assert container["args"] == _image_command()
        assert container["args"][0].partition("=")[2] == container["volumeMounts"][0]["mountPath"]
    kserve = _server_container(manifest(INFERENCE_SERVICE))["args"]
    assert kserve[1:] == _image_command()[1:]

    def arguments(given: list[str]) -> list[str]:
        here = [f"--model_repository={small_clustering}" if each.startswith("--model_rep") else each for each in given]
        return [each for each in here if not each.startswith(NEWER_OPTIONS)]

    with watched_server(*arguments(_image_command()), log=tmp_path / "log") as server:
        for command, timeout_s in probes:
            assert command[: len(CHECK)] == CHECK
            result = CliRunner().invoke(server_main, [*command[1:], "--port", str(server.port)])
            assert result.exit_code == 0, result.output
            given_s = float(re.findall(r"--check_timeout=(\d+)", " ".join(command))[0]) if len(command) > 2 else 5.0
            assert timeout_s > given_s + 2  # for the start of the command
        watcher = psutil.Process(server.process.pid)
        watcher.suspend()  # who would replace what dies
        try:
            for process in server.model_processes("preprocess"):  # or another one might answer
                process.kill()
            for words in {tuple(command[1:]) for command, _ in probes}:
                result = CliRunner().invoke(server_main, [*words, "--port", str(server.port)])
                assert result.exit_code == 1, result.output
        finally:
            watcher.resume()


def test_autoscaler_asks_for_the_metric_that_the_adapters_rule_makes_of_tritons(
    rendered: dict[str, list[Manifest]], clustering_server: RunningServer, tmp_path: Path
) -> None:
    (rule,) = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    scaler = _one(rendered["volume"], "HorizontalPodAutoscaler", "inference-server")["spec"]
    asked = [metric["pods"]["metric"]["name"] for metric in scaler["metrics"] if metric["type"] == "Pods"]
    assert asked == [rule["name"]["as"]]
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
    assert re.match(rule["name"]["matches"], rule["seriesQuery"].partition("{")[0])
    target = clustering_server.metrics_url.removeprefix("http://").removesuffix("/metrics")
    # The operator's labels, namespace and pod, are not at hand: the address stands for them.
    text = (
        rule["metricsQuery"].replace("<<.LabelMatchers>>", f'instance="{target}"').replace("<<.GroupBy>>", "instance")
    )
    with monitoring.running_prometheus(tmp_path, [target]) as prometheus:
        deadline_s = time.monotonic() + 60
        while not (series := monitoring.query(prometheus, text)):
            assert time.monotonic() < deadline_s, f"no data: {text}"
            time.sleep(0.2)
        counted = monitoring.query(prometheus, f'{rule["seriesQuery"].partition("{")[0]}{{model="classifier"}}')
    assert [each["metric"] for each in series] == [{"instance": target}]
    assert float(series[0]["value"][1]) >= 0
    assert len(counted) == 1


def test_operators_rules_and_dashboard_are_those_of_the_plain_prometheus(rendered: dict[str, list[Manifest]]) -> None:
    rules = _one(rendered["monitoring"], "PrometheusRule", "classify")
    assert rules["spec"] == yaml.safe_load((monitoring.MONITORING / "rules.yml").read_text())
    dashboard = _one(rendered["monitoring"], "ConfigMap", "classify-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert [json.loads(text) for text in dashboard["data"].values()] == [monitoring.dashboard()]
    chart = {each["metadata"]["labels"].get("release") for each in rendered["monitoring"]}
    assert chart == {"kube-prometheus-stack"}


def test_operators_prometheus_has_a_running_pod_under_the_job_that_rules_and_dashboard_name(
    rendered: dict[str, list[Manifest]], tmp_path: Path
) -> None:
    (endpoint,) = _one(rendered["monitoring"], "ServiceMonitor", "inference-server")["spec"]["endpoints"]
    fields = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    job = {
        "job_name": "serviceMonitor/classify/inference-server/0",  # as the operator calls it
        "static_configs": [
            {"targets": [f"{phase}:8002"], "labels": {"__meta_kubernetes_pod_phase": phase}}
            for phase in ("Running", "Pending")
        ],
        "relabel_configs": [
            {"target_label": "job", "replacement": "inference-server"},  # and what it names the job after: the Service
            *({fields.get(name, name): value for name, value in each.items()} for each in endpoint["relabelings"]),
        ],
    }
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text(yaml.safe_dump({"scrape_configs": [job]}))
    command = ["promtool", "check", "service-discovery", "--timeout=1s", str(configuration), str(job["job_name"])]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    kept = [each["labels"] for each in json.loads(result.stdout) if each["labels"]]
    assert [(each["instance"], each["job"]) for each in kept] == [("Running:8002", "classify")]
    asked = {
        name
        for each in [*monitoring.rule_expressions(), *monitoring.panel_expressions()]
        for name in re.findall(r'job="([^"]+)"', each.text)
    }
    assert asked == {"classify"}


def test_samples_of_the_pages_are_what_compose_and_prometheus_take(tmp_path: Path) -> None:
    overrides = _yaml_blocks("containers.md")
    assert len(overrides) == 2
    for text in overrides:
        file = tmp_path / "compose.override.yaml"
        file.write_text(text)
        result = check_compose(file)
        assert result.returncode == 0, result.stdout + result.stderr
    alertmanager = yaml.safe_load(overrides[1])["services"]["alertmanager"]
    assert set(alertmanager["networks"]) & set(compose_file()["services"]["prometheus"]["networks"])
    alerting, notification = _yaml_blocks("monitor.md")
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
    routed = {name for each in route["routes"] for name in re.findall(r'severity="(\w+)"', str(each["matchers"]))}
    assert routed < severities  # what remains goes to the first receiver


def _yaml_blocks(page: str) -> list[str]:
    text = (HOW_TO / page).read_text()
    return re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class _GatewayFolder:
    """The gateway's files as its container has them, in places of the test's own."""

    configuration: Path
    writable: Path
    port: int

    def command(self, given: list[str]) -> list[str]:
        """The same command with this folder's places."""
        nginx = shutil.which(given[0], path="/usr/sbin:/usr/bin")
        assert nginx is not None, "nginx is missing: apt-get install nginx-light, as make test does"
        places = {
            "/tmp/": f"{self.writable}/",
            "/etc/classify-gateway/nginx.conf": str(self.configuration / "nginx.conf"),
        }
        return [nginx, *(places.get(each, each) for each in given[1:])]


@pytest.fixture
def gateway_folder(tmp_path: Path) -> _GatewayFolder:
    """Beside the files of ``deploy/gateway`` one key, and a server that is not there."""
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
    (container,) = _pod(_one(rendered["volume"], "Deployment", "gateway"))["containers"]
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
                    found = response.status
            except urllib.error.HTTPError as error:
                found = error.code
                error.close()
            except urllib.error.URLError:
                found = None  # not up yet
            if found == status:
                return
            assert time.monotonic() < deadline_s, f"{found} and not {status}"
            time.sleep(0.05)

    with (tmp_path / "log").open("wb") as output:
        started = compose_file()["services"]["gateway"]["entrypoint"]
        process = start_child(gateway_folder.command(started), output=output)
    try:
        wait_for(503)  # known, and no server there
        (gateway_folder.configuration / "keys.map").write_text('"another" "ward-8";\n')
        subprocess.run(gateway_folder.command(reload.split()), check=True, capture_output=True)
        wait_for(403)
    finally:
        process.terminate()
        process.wait(10)


class _Answers(BaseHTTPRequestHandler):
    """Says what is left to say: a status, and with 200 a label."""

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
        """Say nothing of each request."""


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
    """What Triton says of a full queue and of a dead process: a real one's queue takes minutes to fill for certain."""
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
