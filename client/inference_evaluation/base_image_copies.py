"""Finds labelled images that are copies of base images: a copy is always right, so it says nothing about new images."""

from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from inference_evaluation.labelled_images import LabelledImage


def find_copies(images: Sequence[LabelledImage], base_data: Path) -> frozenset[Path]:
    """Find images whose files equal a base image byte for byte, under any name.

    Args:
        images: The labelled images.
        base_data: Folder of the base images, one sub-folder for each class.

    Returns:
        The paths of the copies.

    Raises:
        OSError: A file or folder can't be read.
    """
    base_files: defaultdict[int, list[Path]] = defaultdict(list)  # by size, to read few files
    for folder in filter(Path.is_dir, base_data.iterdir()):
        for file in filter(Path.is_file, folder.iterdir()):
            base_files[file.stat().st_size].append(file)
    base_digests: dict[int, set[bytes]] = {}
    copies = set()
    for image in images:
        size = image.path.stat().st_size
        if size not in base_digests:
            base_digests[size] = {_digest(file) for file in base_files[size]}
        if base_digests[size] and _digest(image.path) in base_digests[size]:
            copies.add(image.path)
    return frozenset(copies)


def _digest(file: Path) -> bytes:
    return sha256(file.read_bytes()).digest()
