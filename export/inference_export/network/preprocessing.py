"""What a network asks of its images: size and shape, orientation, channels, and mean/std normalization."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inference_export.descriptions import describe_keys, describe_type, describe_value

DEFAULT_IMAGE_SIZE = 384
IMAGE_SIZES = (32, 2048)
# ImageNet's mean and std of red, green and blue, for values of 0 to 1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# For values of 0 to 1. Most numbers meant for values of 0 to 255 are outside.
MEAN_RANGE = (-10.0, 10.0)
STD_RANGE = (1e-6, 1e6)
CROP_FRACTIONS = (0.1, 1.0)
BRIGHTEST = 255
# The choices of a network; the first of each is the default.
CHOICES = {
    "resize": ("squash", "crop", "pad"),
    "interpolation": ("bilinear", "bicubic", "lanczos", "nearest"),
    "orientation": ("as_stored", "upright"),
    "channels": ("rgb", "bgr", "grey"),
}
KEYS = ("image_size", "mean", "std", *CHOICES, "crop_fraction", "resize_size", "pad_color")
_COLORS = 3
_SHOWN_LENGTH = 100


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The preprocessing of a network's images.

    Attributes:
        image_size: Side S in pixels.
        mean: Means of the network's channels, for values of 0 to 1; within ``MEAN_RANGE``.
        std: Standard deviations of the network's channels, for values of 0 to 1; within ``STD_RANGE``.
        resize: ``squash``: both sides become ``resized_to``. ``crop``: the shorter side does, and the aspect ratio
            is kept. ``pad``: the longer side does, and the aspect ratio is kept. Then the S x S pixels in the middle
            are taken, with ``pad_color`` around an image that has fewer.
        resize_size: The side in pixels that ``resize`` speaks of; None: S.
        pad_color: Red, green and blue of 0 to 255 around the image.
        interpolation: Pillow's filter.
        orientation: ``as_stored``: EXIF orientation is not applied. ``upright``: it is.
        channels: ``rgb``, ``bgr``, or ``grey``: Pillow's ``convert("L")``. The order of ``mean`` and ``std``.
        own_image_size: The side that the network or its file names; None: neither names one.
        origin: Where these values come from, in words.
    """

    image_size: int = DEFAULT_IMAGE_SIZE
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    resize: str = CHOICES["resize"][0]
    resize_size: int | None = None
    pad_color: tuple[int, ...] = (0, 0, 0)
    interpolation: str = CHOICES["interpolation"][0]
    orientation: str = CHOICES["orientation"][0]
    channels: str = CHOICES["channels"][0]
    own_image_size: int | None = None
    origin: str = field(default="the defaults", compare=False)

    @property
    def resized_to(self) -> int:
        """The side in pixels that an image is resized to before its middle is taken."""
        return self.resize_size or self.image_size

    @property
    def channel_order(self) -> tuple[int, ...]:
        """Which of red, green and blue, 0 to 2, is each channel of the network's input; all are equal in grey."""
        if self.channels == "grey":
            return tuple(range(len(self.mean)))
        return (2, 1, 0) if self.channels == "bgr" else (0, 1, 2)

    @property
    def geometry(self) -> dict[str, Any]:
        """What ``preprocess`` does to an image, by the names of ``Geometry`` of the server."""
        return {
            "resize": self.resize,
            "resize_size": self.resized_to,
            "pad_color": list(self.pad_color),
            "interpolation": self.interpolation,
            "orientation": self.orientation,
            "is_grey": self.channels == "grey",
        }

    def __str__(self) -> str:
        size, resized = self.image_size, self.resized_to
        middle = "" if resized == size else f", then the middle {size} x {size}"
        how = {
            "squash": f"squash to {resized} x {resized}{middle}",
            "crop": f"shorter side to {resized}, then the middle {size} x {size}",
            "pad": f"longer side to {resized}{middle}, around it the color {', '.join(map(str, self.pad_color))}",
        }[self.resize]
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        orientation = self.orientation.replace("_", " ")
        return f"{how}; {self.interpolation}; {orientation}; {self.channels}; mean {mean}; std {std}"


def find_problem(values: Any) -> str | None:
    """Say what is wrong with a mapping of ``KEYS`` to the values of a ``Preprocessing``; None: nothing.

    ``crop_fraction`` may stand in place of ``resize_size``: the image side, divided by it and rounded down.
    """
    if not isinstance(values, Mapping):
        return f"is {describe_type(values)}, and must be a mapping"
    if unknown := set(values) - set(KEYS):
        return f"has unknown {describe_keys(sorted(unknown, key=str))}; known are {', '.join(KEYS)}"
    size = values.get("image_size", DEFAULT_IMAGE_SIZE)
    if not _is_whole(size, *IMAGE_SIZES):
        return f"has image_size {_shown(size)}, and needs a whole number of {IMAGE_SIZES[0]} to {IMAGE_SIZES[1]}"
    for key, choices in CHOICES.items():
        if values.get(key, choices[0]) not in choices:
            return f"has {key} {_shown(values[key])}, and needs one of {', '.join(choices)}"
    return _find_problem_of_normalization(values) or _find_problem_of_sides(values, size)


def make_preprocessing(values: Mapping[str, Any], image_size: int | None, origin: str) -> Preprocessing:
    """Make a preprocessing of a mapping in which ``find_problem`` finds none.

    Args:
        values: The mapping.
        image_size: Side in pixels that replaces the mapping's; None: the mapping's own. The part of the image that is
            kept stays the same.
        origin: Where the values come from, in words.
    """
    own_size = int(values["image_size"]) if "image_size" in values else None
    size = image_size or own_size or DEFAULT_IMAGE_SIZE
    resize_size = None
    if "resize_size" in values:
        resize_size = int(values["resize_size"]) * size // (own_size or DEFAULT_IMAGE_SIZE)
    elif "crop_fraction" in values:
        resize_size = math.floor(size / float(values["crop_fraction"]))
    return Preprocessing(
        image_size=size,
        mean=tuple(map(float, values.get("mean", MEAN))),
        std=tuple(map(float, values.get("std", STD))),
        resize_size=None if resize_size == size else resize_size,
        pad_color=tuple(map(int, values.get("pad_color", (0, 0, 0)))),
        own_image_size=own_size,
        origin=origin,
        **{key: str(values.get(key, choices[0])) for key, choices in CHOICES.items()},
    )


def _find_problem_of_normalization(values: Mapping[str, Any]) -> str | None:
    is_grey = values.get("channels") == "grey"
    if is_grey and not {"mean", "std"} <= set(values):
        return "has channels 'grey', and needs mean and std: one number each for a network of one channel, or three"
    counts = (1, _COLORS) if is_grey else (_COLORS,)
    for key, (least, most) in (("mean", MEAN_RANGE), ("std", STD_RANGE)):
        if key in values and not _are_numbers(values[key], counts, least, most):
            named = "for grey" if is_grey else "for red, green and blue"
            return (
                f"has {key} {_shown(values[key])}, and needs {'one or three' if is_grey else 'three'} numbers of "
                f"{least:g} to {most:g}, {named} values of 0 to 1"
            )
    if is_grey and len(values["mean"]) != len(values["std"]):
        return "has mean and std of different lengths"
    return None


def _find_problem_of_sides(values: Mapping[str, Any], size: int) -> str | None:
    for key in ("crop_fraction", "resize_size"):
        if key in values and "resize" not in values:
            return f"has {key}, and must say resize too: one of {', '.join(CHOICES['resize'])}"
    if "crop_fraction" in values and "resize_size" in values:
        return "has both crop_fraction and resize_size, and needs one of them at most"
    low, high = CROP_FRACTIONS
    if "crop_fraction" in values and not _is_number(values["crop_fraction"], low, high):
        return f"has crop_fraction {_shown(values['crop_fraction'])}, and needs a number of {low:g} to {high:g}"
    most = math.floor(size / low)
    if "resize_size" in values and not _is_whole(values["resize_size"], size, most):
        return (
            f"has resize_size {_shown(values['resize_size'])}, and needs a whole number of {size} (the image size) to "
            f"{most}"
        )
    return _find_problem_of_color(values) if "pad_color" in values else None


def _find_problem_of_color(values: Mapping[str, Any]) -> str | None:
    color = values["pad_color"]
    needs = f"has pad_color {_shown(color)}, and needs three whole numbers of 0 to {BRIGHTEST}: red, green and blue"
    if not isinstance(color, Sequence) or len(color) != _COLORS:
        return needs
    if not all(_is_whole(value, 0, BRIGHTEST) for value in color):
        return needs
    if values.get("resize") != "pad":
        return "has pad_color, and no resize 'pad' that would use it"
    if values.get("channels") == "grey" and len(set(color)) > 1:
        return f"has pad_color {_shown(color)} with channels 'grey', and needs three equal numbers"
    return None


def _is_whole(value: Any, least: int, most: int) -> bool:
    return not isinstance(value, bool) and isinstance(value, numbers.Integral) and least <= int(value) <= most


def _is_number(value: Any, least: float, most: float) -> bool:
    return not isinstance(value, bool) and isinstance(value, numbers.Real) and least <= value <= most  # type: ignore[operator]


def _are_numbers(values: Any, counts: Iterable[int], least: float, most: float) -> bool:
    return (
        isinstance(values, Sequence)
        and len(values) in counts
        and all(_is_number(value, least, most) for value in values)
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_LENGTH else describe_value(value)
