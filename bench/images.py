"""Makes JPEG files for the benchmarks from the real photographs in scikit-image's wheel; nothing is downloaded."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from bench.errors import BenchError

PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")
SIZE = (1200, 900)  # width, height
IMAGES = 32
TARGET_BYTES = 200_000
SMALL_SIZE = (256, 256)
SMALL_QUALITY = 90
LARGE_SIZE = (4000, 3000)
LARGE_TARGET_BYTES = 3_500_000
GRAIN_LEVELS = 3.0  # standard deviation of the noise added to imitate a sensor
LARGE_GRAIN_LEVELS = 5.0
SEED = 0


def photograph_folder() -> Path:
    """Find the photographs in scikit-image's wheel.

    Raises:
        BenchError: scikit-image is not installed.
    """
    package = find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise BenchError(
            "scikit-image is not installed; its wheel contains the photographs. Install the bench extra:\n"
            "  pip install -e '.[bench]'"
        )
    return Path(package.submodule_search_locations[0]) / "data"


def find_photograph() -> Path:
    """Find a real JPEG, 640 x 427 pixels.

    Raises:
        BenchError: scikit-image is not installed, or its wheel does not contain the photograph.
    """
    path = photograph_folder() / "rocket.jpg"
    if not path.is_file():
        raise BenchError(f"{path} is missing. Install scikit-image again, from its wheel.")
    return path


def write_images(folder: Path) -> list[Path]:
    """Write ``IMAGES`` different JPEG files of ``SIZE`` and about ``TARGET_BYTES`` each, unless they exist."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"image_{number:02}.jpg" for number in range(IMAGES)]
    for number, file in enumerate(files):
        if not file.is_file():
            file.write_bytes(_enlarge(number, SIZE, TARGET_BYTES))
    return files


def write_small_images(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Write each file's picture again as a JPEG of ``SMALL_SIZE`` under the same name, unless it exists."""
    folder.mkdir(parents=True, exist_ok=True)
    small_files = [folder / file.name for file in files]
    for file, small_file in zip(files, small_files, strict=True):
        if not small_file.is_file():
            small_file.write_bytes(_encode(Image.open(file).resize(SMALL_SIZE), SMALL_QUALITY))
    return small_files


def make_large_image() -> bytes:
    """Make a JPEG file of 12 megapixels and 3 to 4 MB."""
    return _enlarge(0, LARGE_SIZE, LARGE_TARGET_BYTES, LARGE_GRAIN_LEVELS)


def _enlarge(number: int, size: tuple[int, int], target_bytes: int, grain_levels: float = GRAIN_LEVELS) -> bytes:
    source = Image.open(photograph_folder() / PHOTOGRAPHS[number % len(PHOTOGRAPHS)]).convert("RGB")
    rng = np.random.default_rng(SEED + number)
    left, top = (int(rng.integers(side // 4)) for side in source.size)
    enlarged = source.crop((left, top, *source.size)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(enlarged) + rng.normal(0, grain_levels, (size[1], size[0], 3))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    encoded = (_encode(image, quality) for quality in range(95, 20, -1))
    return next((data for data in encoded if len(data) <= target_bytes), _encode(image, 20))


def _encode(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
