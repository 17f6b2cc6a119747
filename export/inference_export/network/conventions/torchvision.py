"""torchvision's descriptions of a preprocessing: the preset of trained weights, and ``Compose``.

Only attributes and names of classes are read, so that torchvision need not be installed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from inference_export.network.conventions.unsupported import UnsupportedError
from inference_export.network.preprocessing import CHOICES

_PRESET = "ImageClassification"
_PILLOW_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # what old versions keep
_SAME_ON_PILLOW = {"nearest-exact": "nearest"}
_FORM = "RGB, Grayscale, Resize, CenterCrop, ToTensor (or ToImage and ToDtype), Normalize"


def is_transform(value: Any) -> bool:
    """Tell whether a value is one of torchvision's transforms, of either generation."""
    return type(value).__module__.startswith("torchvision.transforms.")


def translate(transform: Any) -> dict[str, Any]:
    """Translate a transform into what ``find_problem`` checks.

    Raises:
        UnsupportedError: The server can't do what the transform does to images of Pillow.

    Source:
        torchvision 0.28: ``transforms/_presets.py``, ``transforms/transforms.py``, ``transforms/v2``.
    """
    if type(transform).__name__ == _PRESET:
        return {
            "image_size": _only(transform.crop_size, "crop_size"),
            "resize": "crop",
            "resize_size": _only(transform.resize_size, "resize_size"),
            "interpolation": _interpolation(transform.interpolation),
            "mean": list(transform.mean),
            "std": list(transform.std),
        }
    return _Steps(_flatten(transform)).read()


class _Steps:
    """The steps of a ``Compose``, which must come in the order in which the server does them."""

    def __init__(self, steps: Iterator[Any]) -> None:
        self._steps = list(steps)

    def read(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if self._take("RGB") is None and (grey := self._take("Grayscale")) is not None:
            values["channels"] = "grey"
            channels = int(grey.num_output_channels)
        else:
            channels = 3
        values |= self._read_sides()
        self._read_scaling()
        normalize = self._take("Normalize")
        for key, neutral in (("mean", 0.0), ("std", 1.0)):
            numbers = [neutral] * channels if normalize is None else [float(each) for each in getattr(normalize, key)]
            if len(numbers) not in (1, channels):
                raise UnsupportedError(f"has Normalize with {key} of {len(numbers)} values for {channels} channels")
            values[key] = numbers * channels if len(numbers) == 1 else numbers
        if self._steps:
            raise UnsupportedError(
                f"has {type(self._steps[0]).__name__} where the server can't do it. It can do, in this order: {_FORM}"
            )
        return values

    def _read_sides(self) -> dict[str, Any]:
        resize, crop = self._take("Resize"), self._take("CenterCrop")
        if resize is None:
            raise UnsupportedError(f"has no Resize before its other steps. The server can do, in this order: {_FORM}")
        if getattr(resize, "max_size", None) is not None:
            raise UnsupportedError("has Resize with max_size, which the server can't do")
        values: dict[str, Any] = {"interpolation": _interpolation(resize.interpolation)}
        sides = _sides(resize.size)
        if len(sides) == 1:
            if crop is None:
                raise UnsupportedError(
                    f"has Resize({sides[0]}) without CenterCrop, so its images are not square. The server's are"
                )
            values["resize"], resize_size = "crop", sides[0]
        else:
            values["resize"], resize_size = "squash", _only(sides, "Resize")
        values["image_size"] = resize_size if crop is None else _only(_sides(crop.size), "CenterCrop")
        if values["image_size"] > resize_size:
            raise UnsupportedError(
                f"has CenterCrop({values['image_size']}) after Resize({resize_size}), which adds black borders, as "
                f"the server can't"
            )
        return values | {"resize_size": resize_size}

    def _read_scaling(self) -> None:
        """Take the steps from 0 to 255 to 0 to 1."""
        if self._take("ToTensor") is not None:
            return
        if self._take("ToImage", "PILToTensor") is None:
            raise UnsupportedError(f"has no ToTensor after its Resize and CenterCrop. The server can do: {_FORM}")
        conversion = self._take("ToDtype", "ConvertImageDtype")
        is_scaled = type(conversion).__name__ == "ConvertImageDtype" or getattr(conversion, "scale", False)
        if str(getattr(conversion, "dtype", None)) != "torch.float32" or not is_scaled:
            raise UnsupportedError("does not scale its values to 0 to 1: it needs ToDtype(torch.float32, scale=True)")

    def _take(self, *names: str) -> Any:
        """Take the next step if it has one of these names, without steps that change nothing here."""
        while self._steps and type(self._steps[0]).__name__ in ("Identity", "ToPureTensor"):
            del self._steps[0]
        return self._steps.pop(0) if self._steps and type(self._steps[0]).__name__ in names else None


def _flatten(transform: Any) -> Iterator[Any]:
    if type(transform).__name__ == "Compose":
        for step in transform.transforms:
            yield from _flatten(step)
    else:
        yield transform


def _sides(size: Any) -> list[int]:
    return [int(side) for side in size] if isinstance(size, Sequence) else [int(size)]


def _only(sides: Any, what: str) -> int:
    """Return the side of a square."""
    distinct = set(_sides(sides))
    if len(distinct) != 1:
        raise UnsupportedError(f"has {what} {list(sides)}, which is not square. The server's images are square")
    return distinct.pop()


def _interpolation(value: Any) -> str:
    name = str(getattr(value, "value", _PILLOW_FILTERS.get(value, value)))
    name = _SAME_ON_PILLOW.get(name, name)
    if name not in CHOICES["interpolation"]:
        raise UnsupportedError(
            f"has the interpolation {name[:60]}; the server can do {', '.join(CHOICES['interpolation'])}"
        )
    return name
