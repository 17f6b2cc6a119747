"""Choosing the images that calibrate int8, and the images that check int8 and fp16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_export.base_set.base_images import BaseImages
from inference_export.errors import BaseDataError, PrecisionError

FLOAT32, AUTO = "fp32", "auto"
CALIBRATION_IMAGES = 128
HELD_OUT_IMAGES = 128
MIN_IMAGES = 8  # for each of the two


@dataclass(frozen=True, kw_only=True)
class CalibrationSet:
    """The images for int8 and fp16.

    Attributes:
        calibration: Images that calibrate int8.
        held_out: Other images, which measure the loss.
    """

    calibration: list[Path]
    held_out: list[Path]


def choose_images(folder: Path | None, base: BaseImages | None, precision: str) -> CalibrationSet | None:
    """Choose images for calibration and check, without reading any.

    Args:
        folder: Folder of images at any depth; None: the base images are used.
        base: The base images; None in classification mode.
        precision: ``fp32``, ``fp16``, ``int8`` or ``auto``.

    Returns:
        The images; None for ``fp32``, and for ``auto`` if there are too few.

    Raises:
        BaseDataError: The folder holds no image, or can't be read.
        PrecisionError: There are too few images for ``fp16`` or ``int8``, or there is neither a folder nor a base set.
    """
    if precision == FLOAT32:
        return None
    if folder is None and base is None:
        if precision == AUTO:
            return None
        raise PrecisionError(
            f"--precision {precision} needs images for calibration and check, and classification mode has none. Name "
            f"a folder of typical images with --calibration."
        )
    files = _list_images(folder) if folder else base.files if base else []
    if len(files) < 2 * MIN_IMAGES:
        if precision == AUTO:
            return None
        raise PrecisionError(
            f"int8 and fp16 need {2 * MIN_IMAGES} images or more, half for calibration and half for the check, and "
            f"there are {len(files)}. Name a folder of typical images with --calibration."
        )
    return CalibrationSet(
        calibration=spread(files[::2], CALIBRATION_IMAGES), held_out=spread(files[1::2], HELD_OUT_IMAGES)
    )


def spread(files: Sequence[Path], count: int) -> list[Path]:
    """Choose at most ``count`` files, 1 or more, spread evenly over a list."""
    return list(files[:: max(1, -(-len(files) // count))])


def _list_images(folder: Path) -> list[Path]:
    """List the files in a folder at any depth, sorted, except hidden ones."""
    try:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
    except OSError as error:
        raise BaseDataError(f"{folder} can't be read ({error.strerror}).", folder) from error
    files = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not files:
        raise BaseDataError(f"{folder} holds no image to calibrate with.", folder)
    return files
