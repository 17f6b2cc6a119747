"""Names, ports, selectors, limits and mounted files agree across the files of ``deploy/``."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import yaml
from click.testing import CliRunner

from inference_console.command import main as inference_console
from inference_server.supervision.watching import EXIT_TIMEOUT_S, LAST_ANSWERS_S
from tests.deploy.manifests import (
    DEPLOY,
    SERVER_CONTAINERS,
    Manifest,
    all_containers,
    compose_file,
    console_compose_file,
    find_manifest,
    image_command,
    pod_spec,
    server_container,
)

# Of the gateway, for the console; console.conf, which says where it is, is the deployment's.
CONSOLE_FILES = ("console-paths.conf", "console-proxy.conf")


def test_files_that_compose_mounts_exist_and_their_names_agree_with_the_gateway_and_prometheus() -> None:
    compose = compose_file()
    for name, config in compose["configs"].items():
        assert (DEPLOY / config["file"]).is_file(), name  # a config's content can't be put into a read-only container
    for service in compose["services"].values():
        for volume in service.get("volumes", ()):
            source = volume["source"] if isinstance(volume, dict) else volume.split(":")[0]
            assert not source.startswith("./") or (DEPLOY / source).exists(), source
    gateway = compose["services"]["gateway"]
    beside = {Path(file["target"]).name for file in [*gateway["configs"], *gateway["secrets"]]}
    assert beside == {"nginx.conf", "checks.conf", "proxy.conf", "servers.conf", "keys.map", "server.crt", "server.key"}
    added = console_compose_file()
    for name, config in added["configs"].items():
        assert (DEPLOY / config["file"]).is_file(), name
    names = {Path(file["target"]).name for file in added["services"]["gateway"]["configs"]}
    assert names == {"console.conf", *CONSOLE_FILES}
    assert re.findall(r"^server (\S+)", (DEPLOY / "compose" / "servers.conf").read_text(), re.MULTILINE) == [
        "server:8080"
    ]
    mounted = {Path(file["target"]).name for file in compose["services"]["prometheus"]["configs"]}
    prometheus = yaml.safe_load((DEPLOY / "monitoring" / "prometheus.yml").read_text())
    wanted = {*prometheus["rule_files"], *prometheus["scrape_configs"][0]["file_sd_configs"][0]["files"]}
    assert mounted == {"prometheus.yml", *wanted}
    (source,) = yaml.safe_load(
        (DEPLOY / "monitoring" / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )["datasources"]
    assert source["url"] == "http://prometheus:9090"


def test_prometheus_asks_the_servers_that_are_there_in_compose_and_on_one_machine(tmp_path: Path) -> None:
    compose = compose_file()
    prometheus = compose["services"]["prometheus"]
    for config in prometheus["configs"]:
        shutil.copy(DEPLOY / compose["configs"][config["source"]]["file"], tmp_path / Path(config["target"]).name)
    command = ["promtool", "check", "config", str(tmp_path / "prometheus.yml")]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    missing = re.findall(r"WARNING: file \"(\S+)\"", checked.stdout + checked.stderr)
    assert [Path(file).name for file in missing] == ["base-set-targets.yml"]  # nothing follows a folder there
    assert _targets(tmp_path / "targets.yml") == ["server:8002"]
    assert set(compose["services"]["server"]["networks"]) & set(prometheus["networks"])
    assert _targets(DEPLOY / "monitoring" / "targets.yml") == ["127.0.0.1:8002"]
    assert _targets(DEPLOY / "monitoring" / "base-set-targets.yml") == []


def _targets(file: Path) -> list[str]:
    return [target for group in yaml.safe_load(file.read_text()) for target in group["targets"]]


def test_ports_names_and_selectors_agree(overlay: list[Manifest]) -> None:
    for name in ("inference-server", "gateway"):
        deployment = find_manifest(overlay, "Deployment", name)
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        service = find_manifest(overlay, "Service", name)["spec"]
        selectors = [
            service["selector"],
            deployment["spec"]["selector"]["matchLabels"],
            find_manifest(overlay, "PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"],
            find_manifest(overlay, "NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"],
            *(
                constraint["labelSelector"]["matchLabels"]
                for constraint in pod_spec(deployment)["topologySpreadConstraints"]
            ),
        ]
        for selector in selectors:
            assert selector.items() <= labels.items()
        assert {port["targetPort"] for port in service["ports"]} <= set(ports)
        admitted = {
            port["port"]
            for rule in find_manifest(overlay, "NetworkPolicy", name)["spec"]["ingress"]
            for port in rule["ports"]
        }
        assert admitted == set(ports)
    server = find_manifest(overlay, "Deployment", "inference-server")
    ports = {port["name"]: port["containerPort"] for port in server_container(server)["ports"]}
    assert ports == {"http": 8080, "metrics": 8002}
    nginx = (DEPLOY / "gateway" / "nginx.conf").read_text()
    (https,) = pod_spec(find_manifest(overlay, "Deployment", "gateway"))["containers"][0]["ports"]
    assert f"listen {https['containerPort']} ssl" in nginx


def test_gateway_finds_the_server_by_its_service_and_all_its_files(overlay: list[Manifest]) -> None:
    service = find_manifest(overlay, "Service", "inference-server")
    namespace = service["metadata"]["namespace"]
    # Headless: the name has every pod's address, so a lost request can go to another pod.
    assert service["spec"]["clusterIP"] == "None"
    (http,) = [port["port"] for port in service["spec"]["ports"] if port["name"] == "http"]
    pod = pod_spec(find_manifest(overlay, "Deployment", "gateway"))
    volume = next(candidate for candidate in pod["volumes"] if candidate["name"] == "configuration")
    mounted = [source["configMap"] for source in volume["projected"]["sources"] if "configMap" in source]
    names = {source["name"] for source in mounted if not source.get("optional")}
    assert [source["name"] for source in mounted if source.get("optional")] == ["gateway-console"]
    maps = {resource["metadata"]["name"]: resource["data"] for resource in overlay if resource["kind"] == "ConfigMap"}
    assert names == set(maps)
    files = {name: text for data in maps.values() for name, text in data.items()}
    paths = {
        item["path"] for source in volume["projected"]["sources"] for item in source.get("secret", {}).get("items", ())
    }
    assert set(files) | paths == {
        "nginx.conf", "checks.conf", "proxy.conf", "servers.conf", "keys.map", "evaluators.map", "origins.map",
        "tls/server.crt", "tls/server.key", *CONSOLE_FILES,
    }  # fmt: skip
    secrets = [source["secret"] for source in volume["projected"]["sources"] if "secret" in source]
    assert [item["path"] for source in secrets if source.get("optional") for item in source["items"]] == [
        "evaluators.map", "origins.map",
    ]  # fmt: skip
    upstream = f"server inference-server.{namespace}.svc.cluster.local:{http} resolve"
    assert upstream in files["servers.conf"]


def test_console_is_found_reaches_the_server_and_is_reached_by_the_gateway_alone(
    rendered: dict[str, list[Manifest]],
) -> None:
    console, base = rendered["console"], rendered["volume"]
    deployment = find_manifest(console, "Deployment", "inference-console")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    (container,) = pod_spec(deployment)["containers"]
    (port,) = container["ports"]
    service = find_manifest(console, "Service", "inference-console")
    assert service["spec"]["selector"].items() <= labels.items()
    assert service["spec"]["ports"] == [{"name": port["name"], "port": 8090, "targetPort": port["name"]}]
    assert container["image"] == server_container(find_manifest(base, "Deployment", "inference-server"))["image"]
    (url,) = [argument.partition("=")[2] for argument in container["args"] if argument.startswith("--server_ip=")]
    server = find_manifest(base, "Service", "inference-server")
    assert url == f"http://{server['metadata']['name']}:{server['spec']['ports'][0]['port']}"

    configuration = find_manifest(console, "ConfigMap", "gateway-console")["data"]["console.conf"]
    namespace = service["metadata"]["namespace"]
    assert f"set $console inference-console.{namespace}.svc.cluster.local:8090;" in configuration
    assert "include console-paths.conf;" in configuration

    def selects(policy: str, direction: str, peer: str) -> list[Manifest]:
        spec = find_manifest(console, "NetworkPolicy", policy)["spec"]
        side = "from" if direction == "ingress" else "to"
        return [
            spec["podSelector"]["matchLabels"]
            for rule in spec[direction]
            if [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": peer}}}] == rule[side]
        ]

    name = "app.kubernetes.io/name"
    (ingress,) = find_manifest(console, "NetworkPolicy", "inference-console")["spec"]["ingress"]
    assert ingress["from"] == [{"podSelector": {"matchLabels": {name: "gateway"}}}]
    assert selects("inference-console", "egress", "inference-server") == [{name: "inference-console"}]
    assert selects("inference-server-from-console", "ingress", "inference-console") == [{name: "inference-server"}]
    assert selects("gateway-to-console", "egress", "inference-console") == [{name: "gateway"}]
    probe = container["readinessProbe"]["httpGet"]
    assert (probe["path"], probe["port"]) == ("/health", port["name"])
    (tokens,) = [argument.partition("=")[2] for argument in container["args"] if argument.startswith("--token_file=")]
    (folder,) = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "tokens"]
    assert tokens == f"{folder}/tokens"
    # The console takes no file that others can read.
    (secret,) = [volume["secret"] for volume in pod_spec(deployment)["volumes"] if "secret" in volume]
    assert secret["defaultMode"] == 0o440


def test_commands_of_the_console_are_its_own_and_change_nothing(rendered: dict[str, list[Manifest]]) -> None:
    """A renamed option would show only at the next start."""
    (container,) = pod_spec(find_manifest(rendered["console"], "Deployment", "inference-console"))["containers"]
    service = console_compose_file()["services"]["console"]
    assert container["command"] == ["inference-console"]
    assert "exec inference-console " in service["entrypoint"][2]
    for arguments in (container["args"], service["command"]):
        done = CliRunner().invoke(inference_console, [*arguments, "--help"])
        assert done.exit_code == 0, done.output
        assert "--read_only" in arguments
    (address,) = re.findall(r"set \$console (\S+);", (DEPLOY / "compose" / "console.conf").read_text())
    assert address == "console:8090"
    (url,) = [argument.partition("=")[2] for argument in service["command"] if argument.startswith("--server_ip=")]
    assert url == "http://server:8080"


def test_disruption_autoscaling_and_termination_leave_a_server(overlay: list[Manifest]) -> None:
    scaler = find_manifest(overlay, "HorizontalPodAutoscaler", "inference-server")["spec"]
    deployment = find_manifest(overlay, "Deployment", "inference-server")
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"]  # each apply would undo what the autoscaler did
    assert (
        scaler["minReplicas"]
        > find_manifest(overlay, "PodDisruptionBudget", "inference-server")["spec"]["maxUnavailable"]
    )
    container = server_container(deployment)
    pause_s = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    needed_s = pause_s + EXIT_TIMEOUT_S + LAST_ANSWERS_S
    assert pod_spec(deployment)["terminationGracePeriodSeconds"] > needed_s
    stop_s = compose_file()["services"]["server"]["stop_grace_period"]
    assert int(stop_s.removesuffix("s")) > EXIT_TIMEOUT_S + LAST_ANSWERS_S


def test_body_limits_of_gateway_and_server_are_the_same(rendered: dict[str, list[Manifest]]) -> None:
    (limit,) = re.findall(r"client_max_body_size (\d+)m;", (DEPLOY / "gateway" / "nginx.conf").read_text())
    option = f"--http-max-input-size={int(limit) << 20}"
    assert option in image_command()
    servers = [container for container in all_containers(rendered) if container["name"] in SERVER_CONTAINERS]
    assert {server["name"] for server in servers} == SERVER_CONTAINERS
    for server in servers:
        assert option in server["args"], server["name"]
