"""Images that are in the base set, so that being recognized says nothing of them."""

import os
from collections import defaultdict
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from inference_evaluation.labelled_images import LabelledImage


def find_copies(images: Sequence[LabelledImage], base_data: Path) -> frozenset[Path]:
    """Find images whose files are, byte by byte, those of base images, under whatever name.

    Args:
        images: Any.
        base_data: The base images, a folder for each class.

    Returns:
        The paths of those images.

    Raises:
        OSError: A file or folder can't be read.
    """
    # Only files of the same size can be the same: few are read.
    by_size: defaultdict[int, list[Path]] = defaultdict(list)
    for folder in os.scandir(base_data):
        if folder.is_dir():
            for file in os.scandir(folder.path):
                if file.is_file():
                    by_size[file.stat().st_size].append(Path(file.path))
    digests: dict[int, set[bytes]] = {}
    copies = set()
    for image in images:
        size = image.path.stat().st_size
        if size not in by_size:
            continue
        if size not in digests:
            digests[size] = {_digest(file) for file in by_size[size]}
        if _digest(image.path) in digests[size]:
            copies.add(image.path)
    return frozenset(copies)


def _digest(file: Path) -> bytes:
    return sha256(file.read_bytes()).digest()
