"""The ``config.pbtxt`` of each model: the template's text, with the values of an export."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

from inference_export.template import template_directory

NETWORK_MODELS = ("preprocess", "classifier")
HEAD = "cluster_head"
MODELS = (*NETWORK_MODELS, HEAD)
ENSEMBLE = "ensemble"
CONFIG_FILE = "config.pbtxt"
MAX_CONFIG_BYTES = 2**16

ALL_CORES = 0  # counted when the server starts


class Version(NamedTuple):
    """A version of a repository: a base set, and the network that computed its embeddings.

    Attributes:
        number: Number of the version, which is its folder in ``cluster_head``.
        network: Number of its folders in ``preprocess`` and ``classifier``.
    """

    number: int
    network: int

    def folder(self, model: str) -> str:
        """Return the name of the version's folder in a model."""
        return str(self.number if model == HEAD else self.network)


@dataclass(frozen=True, kw_only=True)
class RepositoryShape:
    """The values that all versions in a repository share, since a model has one ``config.pbtxt``.

    Attributes:
        image_size: Side S of the network's input in pixels.
        embedding_size: Length D of an embedding.
        network_classes: Number C' of the network's classes.
        max_batch_size: Most images in a request, and in a batch of the network.
        device: Where the classifier runs, ``cpu`` or ``gpu``.
        cpus: Number of cores for decoding and for the network; ``ALL_CORES``: all cores of the serving machine.
    """

    image_size: int
    embedding_size: int
    network_classes: int
    max_batch_size: int
    device: str
    cpus: int


def render_configs(shape: RepositoryShape, *, versions: Collection[Version], pinned: Version) -> dict[str, str]:
    """Write every model's configuration.

    Args:
        shape: The values that the versions share.
        versions: Complete versions for Triton to load.
        pinned: The version that the ensemble answers with.

    Returns:
        Model name to the text of its ``config.pbtxt``.
    """
    configs = {
        model: parse_config((template_directory() / model / CONFIG_FILE).read_text(encoding="utf-8"))
        for model in (*MODELS, ENSEMBLE)
    }
    dims = {
        "PIXELS": [shape.image_size, shape.image_size, 3],
        "EMBEDDING": [shape.embedding_size],
        "PROBABILITIES": [shape.network_classes],
    }
    queue = configs["preprocess"].dynamic_batching.default_queue_policy
    for model, config in configs.items():
        config.max_batch_size = shape.max_batch_size
        for tensor in (*config.input, *config.output):
            if tensor.name in dims:
                tensor.dims[:] = dims[tensor.name]
        if model != ENSEMBLE:
            config.dynamic_batching.default_queue_policy.CopyFrom(queue)
        _set_versions(config, versions, pinned)
    configs["preprocess"].parameters["decode_threads"].string_value = str(shape.cpus)
    classifier = configs["classifier"]
    classifier.parameters["intra_op_thread_count"].string_value = str(shape.cpus)
    classifier.instance_group[0].kind = classifier.instance_group[0].Kind.Value(f"KIND_{shape.device.upper()}")
    return {model: _to_text(config) for model, config in configs.items()}


def parse_config(text: str) -> Any:
    """Parse a ``config.pbtxt``.

    Returns:
        Triton's own message, ``inference.ModelConfig``.

    Raises:
        ValueError: The text is no model configuration.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(f"no model configuration: {error}") from error


def without_versions(config: str) -> str:
    """Remove the version numbers from a configuration. Exports of the same shape differ in nothing else.

    Raises:
        ValueError: The text is no model configuration.
    """
    parsed = parse_config(config)
    parsed.ClearField("version_policy")
    for step in parsed.ensemble_scheduling.step:
        step.ClearField("model_version")
    return _to_text(parsed)


def with_versions(config: str, versions: Collection[Version], pinned: Version) -> str:
    """Replace the version numbers in a configuration.

    Args:
        config: The text of a ``config.pbtxt``.
        versions: Complete versions for Triton to load.
        pinned: The version that the ensemble answers with.

    Returns:
        The configuration's new text.

    Raises:
        ValueError: The text is no model configuration.
    """
    parsed = parse_config(config)
    _set_versions(parsed, versions, pinned)
    return _to_text(parsed)


def pinned_version(ensemble_config: str) -> Version | None:
    """Read the version that the ensemble answers with from its configuration.

    Returns:
        The version; numbers of 0: the template, which names none; None: the steps name no version.
    """
    try:
        steps = parse_config(ensemble_config).ensemble_scheduling.step
    except ValueError:
        return None
    pins = {step.model_name: int(step.model_version) for step in steps}
    networks = {pins.get(model) for model in NETWORK_MODELS}
    network, number = networks.pop(), pins.get(HEAD)
    return None if networks or network is None or number is None else Version(number=number, network=network)


def read_shape(classifier_config: str) -> RepositoryShape:
    """Read the values that all versions share from the classifier's configuration.

    Raises:
        ValueError: The text is no configuration of a classifier that an export wrote.
    """
    config = parse_config(classifier_config)
    dims = {tensor.name: list(tensor.dims) for tensor in (*config.input, *config.output)}
    try:
        (group,) = config.instance_group
        (image_size, _, _), (embedding_size,), (network_classes,) = (
            dims[name] for name in ("PIXELS", "EMBEDDING", "PROBABILITIES")
        )
        cpus = int(config.parameters["intra_op_thread_count"].string_value)
    except (KeyError, ValueError) as error:
        raise ValueError(f"no configuration of our classifier: {error}") from error
    return RepositoryShape(
        image_size=image_size,
        embedding_size=embedding_size,
        network_classes=network_classes,
        max_batch_size=config.max_batch_size,
        device=group.Kind.Name(group.kind).removeprefix("KIND_").lower(),
        cpus=cpus,
    )


def _set_versions(config: Any, versions: Collection[Version], pinned: Version) -> None:
    if config.HasField("ensemble_scheduling"):
        for step in config.ensemble_scheduling.step:
            step.model_version = int(pinned.folder(step.model_name))
    else:
        folders = {int(version.folder(config.name)) for version in versions}
        config.version_policy.specific.versions[:] = sorted(folders)


def _to_text(config: Any) -> str:
    from google.protobuf import text_format

    return str(text_format.MessageToString(config, use_short_repeated_primitives=True))
