"""timm's description of a preprocessing, ``pretrained_cfg``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inference_export.network.conventions.unsupported import UnsupportedError
from inference_export.network.preprocessing import BRIGHTEST, CHOICES, KEYS, MEAN, STD

PRETRAINED_CFG = "pretrained_cfg"
_CROP_MODES = {"center": "crop", "squash": "squash", "border": "pad"}
# What timm's evaluation takes for values that are missing.
_INPUT_SIZE = (3, 224, 224)
_CROP_PCT = 0.875
_INTERPOLATION = "bicubic"
_MARKS = frozenset({"input_size", "crop_pct", "crop_mode"})
_FOREIGN = tuple(key for key in KEYS if key not in {"mean", "std", "interpolation"})


def is_pretrained_cfg(values: Any) -> bool:
    """Tell whether a mapping is timm's ``pretrained_cfg``, by names that only timm uses."""
    return isinstance(values, Mapping) and not _MARKS.isdisjoint(values)


def translate(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Translate ``pretrained_cfg`` into what ``find_problem`` checks.

    Raises:
        UnsupportedError: timm would do something that the server can't do.

    Source:
        timm 1.0: ``resolve_data_config`` for the values, ``transforms_imagenet_eval`` for their meaning.
    """
    refuse_mixture(cfg)
    size = cfg.get("input_size") or _INPUT_SIZE
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != len(_INPUT_SIZE):
        raise UnsupportedError(f"has input_size {size!r:.60}, and needs [channels, height, width]")
    channels, height, width = size
    if height != width:
        raise UnsupportedError(f"has input_size {list(size)}, which is not square. The server's images are square")
    if channels != len(MEAN):
        raise UnsupportedError(
            f"has input_size {list(size)}. Only three channels are read from it; describe the preprocessing with "
            f"'channels': 'grey' and 'image_size' instead"
        )
    mode = cfg.get("crop_mode") or "center"
    if not isinstance(mode, str) or mode not in _CROP_MODES:
        raise UnsupportedError(f"has crop_mode {mode!r:.60}; the server can do {', '.join(_CROP_MODES)}")
    interpolation = cfg.get("interpolation") or _INTERPOLATION
    if interpolation not in CHOICES["interpolation"]:
        raise UnsupportedError(
            f"has interpolation {interpolation!r:.60}; the server can do {', '.join(CHOICES['interpolation'])}"
        )
    mean = cfg.get("mean") or MEAN
    values = {
        "image_size": height,
        "mean": mean,
        "std": cfg.get("std") or STD,
        "resize": _CROP_MODES[mode],
        "crop_fraction": cfg.get("crop_pct") or _CROP_PCT,
        "interpolation": interpolation,
    }
    if mode == "border" and isinstance(mean, Sequence):
        values["pad_color"] = [round(BRIGHTEST * value) if _is_share(value) else value for value in mean]
    return values


def refuse_mixture(values: Mapping[str, Any]) -> None:
    """Refuse names that timm does not have, beside timm's own: timm's meaning would leave them out.

    Raises:
        UnsupportedError: There are such names.
    """
    if foreign := [key for key in _FOREIGN if key in values]:
        marks = sorted(_MARKS & values.keys()) or [PRETRAINED_CFG]
        raise UnsupportedError(
            f"mixes {', '.join(marks)}, which timm has, with {', '.join(foreign)}, which timm does not have. Keep to "
            f"one convention: image_size, resize and crop_fraction, or timm's input_size, crop_mode and crop_pct"
        )


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 1
