"""The base set as it lies in a version folder: mapped, not read, so that a large one starts quickly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

EMBEDDINGS_FILE = "base_embeddings.npy"  # L2-normalized, float32 [B, D], one class after another
NAMES_FILE = "base_images.txt"  # the name of each, ``class/file name``, on a line
CLASS_SIZES_FILE = "base_class_sizes.json"  # the number of base images of each class
_LINE_FEED = 10


class BaseSet:
    """B base embeddings, and the names of their images.

    Args:
        embeddings: L2-normalized, float32 [B, D], those of one class side by side.
        class_sizes: Number of base images of each class, at least 1 each.
        lines: The names in UTF-8, each with a line feed behind it, uint8 [bytes].
    """

    def __init__(
        self, embeddings: npt.NDArray[np.float32], class_sizes: list[int], lines: npt.NDArray[np.uint8]
    ) -> None:
        self.embeddings = embeddings
        self.class_starts = np.cumsum([0, *class_sizes[:-1]])
        self._lines = lines
        self._ends = np.flatnonzero(lines == _LINE_FEED)

    def names(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.object_]:
        """Name base images: ``class/file name`` for each row, an object array of the same shape."""
        found: npt.NDArray[np.object_] = np.empty(rows.shape, np.object_)
        found.ravel()[:] = [self._name(int(row)) for row in rows.ravel()]
        return found

    def _name(self, row: int) -> str:
        start = int(self._ends[row - 1]) + 1 if row else 0
        return bytes(self._lines[start : self._ends[row]]).decode("utf-8")


def load_base_set(folder: Path) -> BaseSet:
    """Map the base set that the export wrote into a version folder.

    Args:
        folder: The version folder.
    """
    sizes: Any = json.loads((folder / CLASS_SIZES_FILE).read_text(encoding="utf-8"))
    # As plain arrays: a slice of numpy's memmap class costs many times as much.
    embeddings = np.asarray(np.load(folder / EMBEDDINGS_FILE, mmap_mode="r"))
    return BaseSet(embeddings, sizes, np.asarray(np.memmap(folder / NAMES_FILE, np.uint8, mode="r")))
