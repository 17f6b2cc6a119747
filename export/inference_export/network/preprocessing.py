"""The preprocessing that a network asks for: the size of its images, and their mean/std normalization."""

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
# ImageNet's, in RGB order, for values of 0 to 1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# For values of 0 to 1; numbers meant for values of 0 to 255 are mostly outside.
MEAN_RANGE = (-10.0, 10.0)
STD_RANGE = (1e-6, 1e6)
_CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a network asks of its images.

    Attributes:
        image_size: Side S in pixels.
        mean: Subtracted from each channel, RGB, of values of 0 to 1; within ``MEAN_RANGE``.
        std: Each channel is then divided by this; within ``STD_RANGE``.
        own_image_size: The side that the network itself names; None: it names none.
    """

    image_size: int = DEFAULT_IMAGE_SIZE
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    own_image_size: int | None = None


def read_preprocessing(network: nn.Module, name: str | None, image_size: int | None) -> Preprocessing:
    """Read what a network asks of its images from its attribute ``preprocessing``.

    Args:
        network: A network. The attribute, if there is one, is a mapping with any of ``image_size``, ``mean`` and
            ``std``.
        name: The network's name in messages; None: the built-in one.
        image_size: Side in pixels that the user asked for; None: the network's own.

    Returns:
        The preprocessing, with defaults for whatever the network leaves out.

    Raises:
        NetworkError: The attribute is malformed, or reading it fails.
    """
    with users_code(f"--network {name}: reading its attribute {ATTRIBUTE} failed"):
        # With a default, a property that raises an AttributeError would look as if it were absent.
        asked = getattr(network, ATTRIBUTE) if hasattr(type(network), ATTRIBUTE) else getattr(network, ATTRIBUTE, {})
        if problem := _find_problem(asked):
            raise NetworkError(
                f"--network {name}: its attribute {ATTRIBUTE} {problem}. For example: "
                f"{ATTRIBUTE} = {{'image_size': 224, 'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5)}}"
            )
        own_size = int(asked["image_size"]) if "image_size" in asked else None
        return Preprocessing(
            image_size=image_size or own_size or DEFAULT_IMAGE_SIZE,
            mean=tuple(map(float, asked.get("mean", MEAN))),
            std=tuple(map(float, asked.get("std", STD))),
            own_image_size=own_size,
        )


def _find_problem(asked: Any) -> str | None:
    if not isinstance(asked, Mapping):
        return f"is {describe_type(asked)}, and must be a mapping"
    if unknown := set(asked) - {"image_size", "mean", "std"}:
        return f"has unknown {', '.join(sorted(map(str, unknown)))}"
    size = asked.get("image_size", DEFAULT_IMAGE_SIZE)
    low, high = IMAGE_SIZES
    if isinstance(size, bool) or not isinstance(size, numbers.Integral) or not low <= int(size) <= high:
        return f"has image_size {size!r}, and needs a whole number of {low} to {high}"
    for key, (least, most) in (("mean", MEAN_RANGE), ("std", STD_RANGE)):
        if key in asked and not _is_triple(asked[key], least, most):
            return (
                f"has {key} {asked[key]!r}, and needs three numbers of {least:g} to {most:g}, for red, green and blue, "
                f"of values within 0 to 1"
            )
    return None


def _is_triple(values: Any, least: float, most: float) -> bool:
    return (
        isinstance(values, Sequence)
        and len(values) == _CHANNELS
        and all(isinstance(value, numbers.Real) and least <= value <= most for value in values)  # type: ignore[operator]
    )
