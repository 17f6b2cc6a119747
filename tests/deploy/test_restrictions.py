"""Images are pinned, and containers and services have no rights beyond their needs."""

from __future__ import annotations

import re

from inference_client.version import __version__
from tests.deploy.manifests import (
    CPU_DOCKERFILE,
    DOCKERFILE,
    Manifest,
    all_containers,
    compose_file,
    console_compose_file,
    pod_specs,
)


def test_every_image_has_an_exact_tag(rendered: dict[str, list[Manifest]]) -> None:
    images = {container["image"] for container in all_containers(rendered)}
    images |= {service["image"] for service in _compose_services().values()}
    (triton,) = re.findall(r"^ARG TRITON=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    (python,) = re.findall(r"^ARG PYTHON=(\S+)$", CPU_DOCKERFILE.read_text(), re.MULTILINE)
    images |= {f"nvcr.io/nvidia/tritonserver:{triton}", f"docker.io/library/python:{python}"}
    for image in images:
        tag = image.rpartition(":")[2]
        assert re.match(r"v?\d+\.\d+", tag), image
    ours = {image.rpartition(":")[2] for image in images if "classify-triton" in image}
    assert ours == {__version__}


def test_every_container_passes_the_restricted_standard_and_is_read_only(rendered: dict[str, list[Manifest]]) -> None:
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "name"}
    for pod in pod_specs(rendered):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        for volume in pod["volumes"]:
            assert set(volume) <= allowed
    for container in all_containers(rendered):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][kind]), container["name"]


def test_every_compose_service_is_restricted_and_only_the_gateway_is_reached_from_outside() -> None:
    compose = compose_file()
    reachable = {}
    for name, service in _compose_services().items():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["restart"] == "unless-stopped"
        assert {"cpus", "memory", "pids"} <= set(service["deploy"]["resources"]["limits"])
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
    console = console_compose_file()["services"]["console"]
    assert console["networks"] == ["servers"]
    assert [(volume["target"], volume["read_only"]) for volume in console["volumes"]] == [
        ("/models", True), ("/base", True),
    ]  # fmt: skip


def _compose_services() -> dict[str, Manifest]:
    """The services of compose.yaml, and the console's, which adds nothing to the gateway but files."""
    added = console_compose_file()["services"]
    assert set(added) == {"console", "gateway"}
    assert set(added["gateway"]) == {"configs"}
    return {**compose_file()["services"], "console": added["console"]}
