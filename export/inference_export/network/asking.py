"""Reading the preprocessing that a network asks for, from the network, a file beside it, and options."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_export.descriptions import describe_value
from inference_export.errors import NetworkError, ResourcesError
from inference_export.network.conventions import timm, torchvision
from inference_export.network.conventions.unsupported import UnsupportedError
from inference_export.network.preprocessing import Preprocessing, find_problem, make_preprocessing
from inference_export.network.users_code import users_code
from inference_export.resources.preprocessing_file import PreprocessingFile

if TYPE_CHECKING:
    from torch import nn

ATTRIBUTE = "preprocessing"
_EXAMPLE = f"{ATTRIBUTE} = {{'image_size': 224, 'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5)}}"


def read_preprocessing(
    network: nn.Module | None, name: str | None, image_size: int | None, file: PreprocessingFile | None = None
) -> Preprocessing:
    """Read what a network asks of its images.

    The network says it in its attribute ``preprocessing``: a mapping of ``KEYS``, timm's ``pretrained_cfg``, or
    torchvision's transform. Without that attribute, a network's ``pretrained_cfg`` counts. A file holds such a mapping
    too, or one with ``pretrained_cfg`` inside. The network and its file add to each other.

    Args:
        network: The network; None: it is a file that can say nothing, such as ONNX.
        name: The network's name in messages; None: the built-in one.
        image_size: Side in pixels that the user asked for; None: the network's own.
        file: The file that lies beside the network; one that the user named holds in place of the attribute.

    Returns:
        The preprocessing, with defaults for what nobody says.

    Raises:
        NetworkError: The attribute is malformed, or asks for what the server can't do, or reading it fails.
        ResourcesError: So is the file, or it contradicts the attribute.
    """
    in_file = {} if file is None else _read_file(file)
    if network is None or (file is not None and file.is_named):
        return make_preprocessing(in_file, image_size, "the defaults" if file is None else str(file))
    attribute, own = _read_attribute(network, name)
    if file is None:
        return make_preprocessing(own, image_size, f"the network's {attribute}" if own else "the defaults")
    values = in_file | own
    problem = _find_contradiction(in_file, own) or find_problem(values)
    if problem:
        raise ResourcesError(
            f"{file.path} and the network's attribute {attribute} contradict each other: together, the preprocessing "
            f"{problem}. Remove the wrong one, or name the file with --preprocessing to have it replace the attribute.",
            file.path,
        )
    origin = f"{file} and the network's {attribute}" if own else str(file)
    return make_preprocessing(values, image_size, origin)


def _read_file(file: PreprocessingFile) -> dict[str, Any]:
    values = file.values
    nested = values.get(timm.PRETRAINED_CFG)
    with _refused_as(ResourcesError, f"{file}: it", "Mend the file.", file.path):
        if isinstance(nested, Mapping):
            timm.refuse_mixture(values)
            values = nested
        return _normalized(values)


def _read_attribute(network: nn.Module, name: str | None) -> tuple[str, dict[str, Any]]:
    """Return the name of the network's attribute, and its values; none if it has no such attribute."""
    who = f"--network {name}: " if name else "the network: "
    with users_code(f"{who}looking for its attribute {ATTRIBUTE} failed"):
        attribute = next((each for each in (ATTRIBUTE, timm.PRETRAINED_CFG) if _has(network, each)), ATTRIBUTE)
    with users_code(f"{who}reading its attribute {attribute} failed"):
        # With a default, getattr would ignore an AttributeError inside a property.
        value = getattr(network, attribute) if _has(network, attribute) else {}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):  # timm's PretrainedCfg
            value = vars(value)
        with _refused_as(NetworkError, f"{who}its attribute {attribute}", f"For example: {_EXAMPLE}", None):
            return attribute, _normalized(value, is_cfg=attribute != ATTRIBUTE)


def _has(network: nn.Module, attribute: str) -> bool:
    return hasattr(type(network), attribute) or hasattr(network, attribute)  # the class first: it may be a property


def _normalized(value: Any, *, is_cfg: bool = False) -> dict[str, Any]:
    """Translate a description of any convention into a mapping without problems.

    Raises:
        UnsupportedError: It has a problem.
    """
    if is_cfg or timm.is_pretrained_cfg(value):
        value = timm.translate(value)
    elif torchvision.is_transform(value):
        value = torchvision.translate(value)
    if problem := find_problem(value):
        raise UnsupportedError(problem)
    return dict(value)


@contextlib.contextmanager
def _refused_as(kind: type[NetworkError | ResourcesError], who: str, remedy: str, path: Path | None) -> Iterator[None]:
    try:
        yield
    except UnsupportedError as error:
        raise kind(f"{who} {error}. {remedy}", path) from error


def _find_contradiction(in_file: Mapping[str, Any], own: Mapping[str, Any]) -> str | None:
    """Name a value that the file and the network give differently."""
    for key in in_file.keys() & own.keys():
        values = [list(each[key]) if isinstance(each[key], (list, tuple)) else each[key] for each in (in_file, own)]
        if values[0] != values[1]:
            said = " in the file and ".join(map(_shown, values))
            return f"has {key} {said} in the attribute"
    return None


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, list) else describe_value(value)
