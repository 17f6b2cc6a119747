"""What a Kubernetes apiserver refuses, or takes and never runs, though every field has its type: beyond the schemas.

Kubernetes has them in Go (``pkg/apis/*/validation``); these are the ones that a slip in ``deploy/`` could break. Each
rule yields a sentence for everything that it refuses.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from ipaddress import IPv4Network
from typing import Any

Fields = dict[str, Any]

HIGHEST_PORT = 65535
LONGEST_PORT_NAME = 15
LONGEST_LABEL = 63
# kubectl apply keeps the whole manifest in an annotation.
LARGEST_MANIFEST_BYTES = 262144
HANDLERS = {"exec", "httpGet", "tcpSocket", "grpc"}
UNITS = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10**3),
    **{unit: Decimal(1000 ** (number + 2)) for number, unit in enumerate("MGTPE")},
    **{f"{unit}i": Decimal(1024 ** (number + 1)) for number, unit in enumerate("KMGTPE")},
}  # fmt: skip
# What an autoscaler's metric of each type is compared with.
TARGETS = {
    "Pods": {"averageValue"}, "Resource": {"averageUtilization", "averageValue"},
    "ContainerResource": {"averageUtilization", "averageValue"}, "Object": {"value", "averageValue"},
    "External": {"value", "averageValue"},
}  # fmt: skip
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
_FILE_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_QUANTITY = re.compile(r"(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")


def refusals(manifest: Fields) -> list[str]:
    """List what an apiserver would refuse in a manifest that follows its schema."""
    rules = [_names_and_size, *KINDS.get(manifest["kind"], ())]
    return [refusal for rule in rules for refusal in rule(manifest)]


def quantity(value: Any) -> Decimal | None:
    """Read a quantity such as ``500m`` or ``4Gi``; None if it is none, or negative."""
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        return None
    number, exponent, unit = match.groups()
    return Decimal(number) * (Decimal(10) ** int(exponent) if exponent else UNITS[unit or ""])


def _names_and_size(manifest: Fields) -> Iterator[str]:
    metadata = manifest["metadata"]
    kind_of_name = _SERVICE_NAME if manifest["kind"] == "Service" else _DNS_NAME
    if not kind_of_name.fullmatch(metadata["name"]):
        yield f"the name {metadata['name']} is not one of {manifest['kind']}"
    for label, value in metadata.get("labels", {}).items():
        if len(value) > LONGEST_LABEL or not _LABEL_VALUE.fullmatch(value):
            yield f"label {label} has the value {value!r}"
    if (size := len(json.dumps(manifest))) > LARGEST_MANIFEST_BYTES:
        yield f"{size} bytes are too long for kubectl apply, which takes {LARGEST_MANIFEST_BYTES}"


def _rollout(deployment: Fields) -> Iterator[str]:
    strategy = deployment["spec"].get("strategy", {})
    rolling = strategy.get("rollingUpdate", {})
    if strategy.get("type") == "Recreate" and rolling:
        yield "strategy Recreate has no rollingUpdate"
    counts = [str(rolling.get(name, "25%")) for name in ("maxSurge", "maxUnavailable")]
    if all(count in {"0", "0%"} for count in counts):
        yield "maxSurge and maxUnavailable are both 0: no pod could ever be replaced"


def _selector(deployment: Fields) -> Iterator[str]:
    selector = deployment["spec"]["selector"]
    selected = selector.get("matchLabels", {})
    labels = deployment["spec"]["template"]["metadata"].get("labels", {})
    if not any(selector.values()):
        yield "the selector is empty"
    if not selected.items() <= labels.items():
        yield f"the selector {selected} does not match the template's labels {labels}"


def _deployments_pod(deployment: Fields) -> Iterator[str]:
    pod = deployment["spec"]["template"]["spec"]
    if pod.get("restartPolicy", "Always") != "Always":
        yield f"restartPolicy of a Deployment's pods is Always, and not {pod['restartPolicy']}"
    yield from _pod(pod)


def _pod(pod: Fields) -> Iterator[str]:
    containers = [*pod.get("initContainers", ()), *pod["containers"]]
    volumes = {volume["name"] for volume in pod.get("volumes", ())}
    yield from _twice("containers are called", (container["name"] for container in containers))
    yield from _twice("volumes are called", (volume["name"] for volume in pod.get("volumes", ())))
    for volume in pod.get("volumes", ()):
        yield from _volume(volume)
    for container in containers:
        for refusal in _container(container, volumes):
            yield f"container {container['name']}: {refusal}"
    for init in pod.get("initContainers", ()):
        probes = {"livenessProbe", "readinessProbe", "startupProbe"} & set(init)
        if probes and init.get("restartPolicy") != "Always":
            yield f"init container {init['name']} ends, and has {', '.join(sorted(probes))}"


def _volume(volume: Fields) -> Iterator[str]:
    name = volume["name"]
    sources = set(volume) - {"name"}
    if len(sources) > 1 or not _DNS_LABEL.fullmatch(name):
        yield f"volume {name} has {len(sources)} sources and may have one, or the name is no DNS label"
    limit = volume.get("emptyDir", {}).get("sizeLimit", "0")
    if quantity(limit) is None:
        yield f"volume {name}: sizeLimit {limit} is no quantity"
    projected = volume.get("projected", {}).get("sources", ())
    paths = [item["path"] for source in projected for part in source.values() for item in part.get("items", ())]
    yield from _twice(f"volume {name} has the path", paths)
    for path in paths:
        if path.startswith("/") or ".." in path.split("/"):
            yield f"volume {name}: path {path} leaves the volume"


def _container(container: Fields, volumes: set[str]) -> Iterator[str]:
    if not _DNS_LABEL.fullmatch(container["name"]) or len(container["name"]) > LONGEST_LABEL:
        yield "the name is no DNS label"
    mounts = container.get("volumeMounts", ())
    # The later one holds, with a warning; a server-side apply is refused.
    yield from _twice("environment variables are called", (variable["name"] for variable in container.get("env", ())))
    yield from _twice("mounts are at", (mount["mountPath"] for mount in mounts))
    for mount in mounts:
        if mount["name"] not in volumes:
            yield f"{mount['mountPath']} is a mount of {mount['name']}, which is no volume of the pod"
    yield from _ports(container.get("ports", ()))
    yield from _resources(container.get("resources", {}))
    names = {port.get("name") for port in container.get("ports", ())}
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        if kind in container:
            yield from _probe(kind, container[kind], names)
    hooks = container.get("lifecycle", {})
    for hook, handler in hooks.items():
        if len(handler.keys() & {*HANDLERS, "sleep"}) != 1:
            yield f"{hook} has {len(handler)} handlers"


def _ports(ports: Iterable[Fields]) -> Iterator[str]:
    named = [port["name"] for port in ports if "name" in port]
    yield from _twice("ports are called", named)
    for name in named:
        yield from _port_name(name)
    numbers = ((port["containerPort"], port.get("protocol", "TCP")) for port in ports)
    yield from (f"port {number} does not exist" for number, _ in numbers if not 0 < number <= HIGHEST_PORT)


def _port_name(name: str) -> Iterator[str]:
    if len(name) > LONGEST_PORT_NAME:
        yield f"port name {name} has more than {LONGEST_PORT_NAME} characters"
    if not _DNS_LABEL.fullmatch(name) or "--" in name or not re.search("[a-z]", name):
        yield f"port name {name} is not made of a-z, 0-9 and single hyphens, with a letter"


def _resources(resources: Fields) -> Iterator[str]:
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    amounts = [("requests", name, value) for name, value in requests.items()]
    amounts += [("limits", name, value) for name, value in limits.items()]
    wrong = [f"{kind}.{name} {value} is no quantity" for kind, name, value in amounts if quantity(value) is None]
    yield from wrong
    if wrong:
        return
    for name in requests.keys() | limits.keys():
        request, limit = (quantity(table[name]) if name in table else None for table in (requests, limits))
        if request is not None and limit is not None and request > limit:
            yield f"the request {requests[name]} of {name} is above its limit {limits[name]}"
        # Devices, as nvidia.com/gpu, are neither shared nor lent.
        if "/" in name and limit is None:
            yield f"{name} needs a limit"
        if "/" in name and None not in {request, limit} and request != limit:
            yield f"{name}: the request has to be the limit"
        if "/" in name and any(value is not None and value % 1 for value in (request, limit)):
            yield f"{name} is counted in whole numbers"


def _probe(kind: str, probe: Fields, ports: set[Any]) -> Iterator[str]:
    handlers = HANDLERS & set(probe)
    if len(handlers) != 1:
        yield f"{kind} has {len(handlers)} handlers"
    if kind != "readinessProbe" and probe.get("successThreshold", 1) != 1:
        yield f"successThreshold of a {kind} is 1"
    for field in ("timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if probe.get(field, 1) < 1:
            yield f"{field} of {kind} is below 1"
    for handler in handlers:
        port = probe[handler].get("port")
        if isinstance(port, str) and port not in ports:
            yield f"{kind} asks port {port}, which the container does not have"


def _autoscaler(scaler: Fields) -> Iterator[str]:
    lowest, highest = scaler["spec"].get("minReplicas", 1), scaler["spec"]["maxReplicas"]
    if not 1 <= lowest <= highest:
        yield f"minReplicas {lowest} has to be between 1 and maxReplicas, {highest}"
    for metric in scaler["spec"].get("metrics", ()):
        source = metric.get(metric["type"][0].lower() + metric["type"][1:])
        if source is None:
            yield f"a metric of type {metric['type']} has no such source"
        elif len(TARGETS[metric["type"]] & set(source["target"])) != 1:
            yield f"the target of {metric['type']} has to have one of {sorted(TARGETS[metric['type']])}"


def _predictor(service: Fields) -> Iterator[str]:
    predictor = service["spec"]["predictor"]
    if predictor.get("minReplicas", 1) > predictor.get("maxReplicas", 0) > 0:
        yield f"minReplicas {predictor['minReplicas']} is above maxReplicas, {predictor['maxReplicas']}"


def _budget(budget: Fields) -> Iterator[str]:
    given = {"minAvailable", "maxUnavailable"} & set(budget["spec"])
    if len(given) > 1:
        yield "minAvailable and maxUnavailable are both set"
    for name in given:
        if not re.fullmatch(r"\d+|(\d|[1-9]\d|100)%", str(budget["spec"][name])):
            yield f"{name} {budget['spec'][name]} is neither a number nor up to 100%"


def _service(service: Fields) -> Iterator[str]:
    ports = service["spec"].get("ports", [])
    if len(ports) > 1 and not all("name" in port for port in ports):
        yield "one of several ports has no name"
    yield from _twice("ports are called", (port["name"] for port in ports if "name" in port))
    yield from _twice("ports have the number", (f"{port['port']}/{port.get('protocol', 'TCP')}" for port in ports))
    for port in ports:
        for number in (port["port"], port.get("targetPort", port["port"])):
            if isinstance(number, str):
                yield from _port_name(number)
            elif not 0 < number <= HIGHEST_PORT:
                yield f"port {number} does not exist"
    if service["spec"].get("clusterIP") == "None" and service["spec"].get("type", "ClusterIP") != "ClusterIP":
        yield f"a {service['spec']['type']} has an address, and clusterIP is None"


def _network_policy(policy: Fields) -> Iterator[str]:
    spec = policy["spec"]
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for rule in spec.get(direction, ()):
            for port in rule.get("ports", ()):
                yield from _policy_port(port)
            for peer in rule.get(peers, ()):
                yield from _policy_peer(peer)


def _policy_port(port: Fields) -> Iterator[str]:
    number = port.get("port")
    if isinstance(number, str):
        yield from _port_name(number)
        if "endPort" in port:
            yield f"port {number} has an endPort, which only numbers have"
        return
    first: int = number or 1
    last: int = port.get("endPort", first)
    if not 0 < first <= last <= HIGHEST_PORT:
        yield f"ports {first} to {last} do not exist"


def _policy_peer(peer: Fields) -> Iterator[str]:
    if not peer or ("ipBlock" in peer and len(peer) > 1):
        yield f"a peer is one of addresses or of selectors, and not {sorted(peer)}"
    block = peer.get("ipBlock", {"cidr": "0.0.0.0/0"})
    try:
        network, *parts = [IPv4Network(text, strict=False) for text in (block["cidr"], *block.get("except", ()))]
    except ValueError as error:
        yield f"ipBlock: {error}"
        return
    for part in parts:
        if not part.subnet_of(network):
            yield f"ipBlock: {part} is not within {network}"


def _claim(claim: Fields) -> Iterator[str]:
    size = claim["spec"].get("resources", {}).get("requests", {}).get("storage")
    if not claim["spec"].get("accessModes"):
        yield "a claim needs accessModes"
    if not quantity(size):
        yield f"a claim needs a size, and not {size}"


def _file_names(configuration: Fields) -> Iterator[str]:
    for name in configuration.get("data", {}):
        if not _FILE_KEY.fullmatch(name):
            yield f"{name} is no name of a key: letters, digits, '-', '_' and '.'"


def _twice(what: str, names: Iterable[str]) -> Iterator[str]:
    for name, number in Counter(names).items():
        if number > 1:
            yield f"{number} {what} {name}"


KINDS: dict[str, tuple[Callable[[Fields], Iterator[str]], ...]] = {
    "ConfigMap": (_file_names,),
    "Deployment": (_rollout, _selector, _deployments_pod),
    "HorizontalPodAutoscaler": (_autoscaler,),
    "InferenceService": (_predictor,),
    "NetworkPolicy": (_network_policy,),
    "PersistentVolumeClaim": (_claim,),
    "Pod": (lambda pod: _pod(pod["spec"]),),
    "PodDisruptionBudget": (_budget,),
    "Service": (_service,),
}
