"""The preprocessing that a network asks for: image size and mean/std normalization."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference_export.descriptions import describe_type
from inference_export.errors import NetworkError
from inference_export.network.users_code import users_code

if TYPE_CHECKING:
    from torch import nn

ATTRIBUTE = "preprocessing"
DEFAULT_IMAGE_SIZE = 384
IMAGE_SIZES = (32, 2048)
# ImageNet's mean and std of red, green and blue, for values of 0 to 1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# For values of 0 to 1. Most numbers meant for values of 0 to 255 are outside.
MEAN_RANGE = (-10.0, 10.0)
STD_RANGE = (1e-6, 1e6)
_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The preprocessing of a network's images.

    Attributes:
        image_size: Side S in pixels.
        mean: Means of red, green and blue, for values of 0 to 1; within ``MEAN_RANGE``.
        std: Standard deviations of red, green and blue, for values of 0 to 1; within ``STD_RANGE``.
        own_image_size: The side that the network names; None: it names none.
    """

    image_size: int = DEFAULT_IMAGE_SIZE
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    own_image_size: int | None = None


def read_preprocessing(network: nn.Module, name: str | None, image_size: int | None) -> Preprocessing:
    """Read the attribute ``preprocessing`` of a network.

    Args:
        network: A network. The attribute, if it exists, is a mapping with any of ``image_size``, ``mean`` and ``std``.
        name: The network's name in messages; None: the built-in one.
        image_size: Side in pixels that the user asked for; None: the network's own.

    Returns:
        The preprocessing, with defaults for the values that the network leaves out.

    Raises:
        NetworkError: The attribute is malformed, or reading it fails.
    """
    with users_code(f"--network {name}: reading its attribute {ATTRIBUTE} failed"):
        # With a default, getattr would ignore an AttributeError inside a property.
        values = getattr(network, ATTRIBUTE) if hasattr(type(network), ATTRIBUTE) else getattr(network, ATTRIBUTE, {})
        if problem := _find_problem(values):
            raise NetworkError(
                f"--network {name}: its attribute {ATTRIBUTE} {problem}. For example: "
                f"{ATTRIBUTE} = {{'image_size': 224, 'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5)}}"
            )
        own_size = int(values["image_size"]) if "image_size" in values else None
        return Preprocessing(
            image_size=image_size or own_size or DEFAULT_IMAGE_SIZE,
            mean=tuple(map(float, values.get("mean", MEAN))),
            std=tuple(map(float, values.get("std", STD))),
            own_image_size=own_size,
        )


def _find_problem(values: Any) -> str | None:
    if not isinstance(values, Mapping):
        return f"is {describe_type(values)}, and must be a mapping"
    if unknown := set(values) - {"image_size", "mean", "std"}:
        return f"has unknown {', '.join(sorted(map(str, unknown)))}"
    size = values.get("image_size", DEFAULT_IMAGE_SIZE)
    low, high = IMAGE_SIZES
    if isinstance(size, bool) or not isinstance(size, numbers.Integral) or not low <= int(size) <= high:
        return f"has image_size {size!r}, and needs a whole number of {low} to {high}"
    for key, (least, most) in (("mean", MEAN_RANGE), ("std", STD_RANGE)):
        if key in values and not _is_triple(values[key], least, most):
            return (
                f"has {key} {values[key]!r}, and needs three numbers of {least:g} to {most:g}, for red, green and blue "
                f"values of 0 to 1"
            )
    return None


def _is_triple(values: Any, least: float, most: float) -> bool:
    return (
        isinstance(values, Sequence)
        and len(values) == _CHANNELS
        and all(isinstance(value, numbers.Real) and least <= value <= most for value in values)  # type: ignore[operator]
    )
