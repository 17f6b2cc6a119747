"""The network that is exported, the user's own or the built-in one, and what it asks of images."""

from __future__ import annotations

import importlib
import math
import numbers
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inference_export.errors import NetworkError
from inference_export.network.preprocessing import (
    DEFAULT_IMAGE_SIZE,
    IMAGE_SIZES,
    MEAN,
    MEAN_RANGE,
    STD,
    STD_RANGE,
    Preprocessing,
)
from inference_export.network.source import importable_from_here, require_module, split_name
from inference_export.network.users_code import users_code

if TYPE_CHECKING:
    from torch import Tensor, nn

ATTRIBUTE = "preprocessing"
_CHANNELS = 3
_PROBE_BATCHES = (1, 3)
_ROW_TOLERANCE = 1e-3  # of the largest value: kernels of different batch sizes round differently


def make_network(name: str | None, classes: int) -> nn.Module:
    """Make the network, with weights as they are initialized.

    Args:
        name: ``package.module:factory``, importable from the current folder: its code is run. None: the built-in one.
        classes: Number of classes C', which the factory is called with.

    Raises:
        NetworkError: It can't be imported, or what it gives is no network.
    """
    from torch import nn

    if name is None:
        from inference_export.network.resnet50 import TwoHeadedResNet50

        return TwoHeadedResNet50(classes)
    module, attribute = split_name(name)
    require_module(name)
    with users_code(f"--network {name}: importing {module} failed"), importable_from_here():
        factory = getattr(importlib.import_module(module), attribute, None)
    if not callable(factory):
        state = "is not callable" if factory is not None else "is not there"
        raise NetworkError(
            f"--network {name}: {attribute} {state} in {module}. It must be a function or class that takes the number "
            f"of classes and returns a torch.nn.Module."
        )
    remedy = "It is called with the number of classes that labels names."
    with users_code(f"--network {name}: {attribute}({classes}) failed", remedy), importable_from_here():
        network = factory(classes)
    if not isinstance(network, nn.Module):
        raise NetworkError(f"--network {name}: {attribute}({classes}) returned {_kind(network)}, no torch.nn.Module.")
    return network


def read_preprocessing(network: nn.Module, name: str | None, image_size: int | None) -> Preprocessing:
    """Read what a network asks of its images, from its attribute ``preprocessing``.

    Args:
        network: The attribute, where it has one, is a mapping that holds any of ``image_size``, ``mean`` and ``std``.
        name: Of the network, for messages; None: the built-in one.
        image_size: Side in pixels that the user asked for; None: the network's own.

    Raises:
        NetworkError: The attribute is malformed, or can't be read.
    """
    with users_code(f"--network {name}: reading its attribute {ATTRIBUTE} failed"):
        return _read_preprocessing(network, name, image_size)


def _read_preprocessing(network: nn.Module, name: str | None, image_size: int | None) -> Preprocessing:
    # A property that raises an AttributeError would look as if there were none.
    asked = getattr(network, ATTRIBUTE) if hasattr(type(network), ATTRIBUTE) else getattr(network, ATTRIBUTE, {})
    problem = None
    if not isinstance(asked, Mapping):
        problem = f"is {_kind(asked)}, no mapping"
    elif unknown := set(asked) - {"image_size", "mean", "std"}:
        problem = f"has unknown {', '.join(sorted(map(str, unknown)))}"
    else:
        own_size = asked.get("image_size", DEFAULT_IMAGE_SIZE)
        low, high = IMAGE_SIZES
        if isinstance(own_size, bool) or not isinstance(own_size, numbers.Integral) or not low <= int(own_size) <= high:
            problem = f"has image_size {own_size!r}, which is no whole number of {low} to {high}"
        for key, (least, most) in (("mean", MEAN_RANGE), ("std", STD_RANGE)):
            if key in asked and not _is_triple(asked[key], least, most):
                problem = (
                    f"has {key} {asked[key]!r}, and needs three numbers of {least:g} to {most:g}, for red, green and "
                    f"blue, of values within 0 to 1"
                )
    if problem is not None:
        raise NetworkError(
            f"--network {name}: its attribute {ATTRIBUTE} {problem}. For example: "
            f"{ATTRIBUTE} = {{'image_size': 224, 'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5)}}"
        )
    return Preprocessing(
        image_size=image_size or int(own_size),
        mean=tuple(map(float, asked.get("mean", MEAN))),
        std=tuple(map(float, asked.get("std", STD))),
        own_image_size=int(own_size) if "image_size" in asked else None,
    )


def measure_embedding(network: nn.Module, name: str | None, preprocessing: Preprocessing, classes: int) -> int:
    """Run the network on noise, and check that what it returns can be served.

    Args:
        network: In evaluation mode, on the CPU.
        name: Of the network, for messages; None: the built-in one.
        preprocessing: What it asks of images.
        classes: Number of classes C'.

    Returns:
        Length D of an embedding.

    Raises:
        NetworkError: It fails, returns something else than a pair of embeddings [N, D] and logits [N, C'], or an
            image's result depends on the images beside it.
    """
    import torch

    size = preprocessing.image_size
    images = torch.randn(max(_PROBE_BATCHES), 3, size, size, generator=torch.Generator().manual_seed(0))
    found = []
    for count in _PROBE_BATCHES:
        what = f"{_named(name)} failed on {count} image{'s' * (count > 1)}, float32 [{count}, 3, {size}, {size}]"
        remedy = "It must take any number of images at once, and this size (--image_size)."
        with users_code(what, remedy), torch.inference_mode():
            output = network(images[:count])
        found.append(_check_output(output, name, count, classes))
    for what, alone, among in zip(("embedding", "logits"), *found, strict=True):
        if alone.shape[1] != among.shape[1]:
            raise NetworkError(
                f"{_named(name)} returns {what} of {alone.shape[1]} values for one image, and of {among.shape[1]} "
                f"for each of several."
            )
        largest = float(among.abs().max())
        # Values that are not finite are refused later, on images.
        if math.isfinite(largest) and float((alone[0] - among[0]).abs().max()) > _ROW_TOLERANCE * largest:
            raise NetworkError(
                f"{_named(name)} returns another {what} for an image that is alone than for the same one beside "
                f"others. The server puts images of different clients into one batch: an image's result must depend "
                f"on that image only."
            )
    return int(found[0][0].shape[1])


def _check_output(output: Any, name: str | None, count: int, classes: int) -> tuple[Tensor, Tensor]:
    import torch

    if not isinstance(output, Sequence) or len(output) != len(("embedding", "logits")):
        raise NetworkError(f"{_named(name)} returns {_kind(output)}, and must return the pair (embedding, logits).")
    for what, values in zip(("embedding", "logits"), output, strict=True):
        if not isinstance(values, torch.Tensor) or not values.is_floating_point():
            raise NetworkError(f"{_named(name)} returns {_kind(values)} as {what}, and must return a float tensor.")
        if values.ndim != 2 or len(values) != count or not values.shape[1]:  # noqa: PLR2004 - [N, values]
            raise NetworkError(
                f"{_named(name)} returns {what} of shape {list(values.shape)} for {count} "
                f"image{'s' * (count > 1)}, and must return [{count}, {'D' if what == 'embedding' else classes}]."
            )
    embedding, logits = output
    if logits.shape[1] != classes:
        raise NetworkError(
            f"{_named(name)} returns {logits.shape[1]} logits an image, and labels names {classes} classes. The second "
            f"of the pair (embedding, logits) must have one logit for each class."
        )
    return embedding, logits


def _is_triple(values: Any, least: float, most: float) -> bool:
    return (
        isinstance(values, Sequence)
        and len(values) == _CHANNELS
        and all(isinstance(value, numbers.Real) and least <= value <= most for value in values)  # type: ignore[operator]
    )


def _named(name: str | None) -> str:
    return f"--network {name}: the network" if name else "the network"


def _kind(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
