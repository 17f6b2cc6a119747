"""The base set of a version folder, mapped into memory so that a large one loads quickly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

EMBEDDINGS_FILE = "base_embeddings.npy"  # L2-normalized, float32 [B, D], one class after another
NAMES_FILE = "base_images.txt"  # a line for each embedding: ``class/file name``
CLASS_SIZES_FILE = "base_class_sizes.json"  # the number of base images of each class
_LINE_FEED = 10


class BaseSet:
    """B base embeddings and the names of their images.

    Args:
        embeddings: L2-normalized, float32 [B, D], one class after another.
        class_sizes: Number of base images of each class, at least 1 each.
        lines: The names in UTF-8, each followed by a line feed, uint8 [bytes].

    Attributes:
        embeddings: The base embeddings, float32 [B, D].
        class_starts: First row of each class, integers [C].
    """

    def __init__(
        self, embeddings: npt.NDArray[np.float32], class_sizes: list[int], lines: npt.NDArray[np.uint8]
    ) -> None:
        self.embeddings = embeddings
        self.class_starts = np.cumsum([0, *class_sizes[:-1]])
        self._bytes = memoryview(lines)  # type: ignore[arg-type]
        self._ends = np.append(-1, np.flatnonzero(lines == _LINE_FEED))  # -1 begins the first line

    def names(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.object_]:
        """Return the names of base images, ``class/file name``: an object array of the shape of ``rows``."""
        flat = rows.ravel()
        starts, ends = (self._ends[flat] + 1).tolist(), self._ends[flat + 1].tolist()
        lines = [self._bytes[start:end] for start, end in zip(starts, ends, strict=True)]
        return np.array([str(line, "utf-8") for line in lines], np.object_).reshape(rows.shape)


def load_base_set(folder: Path) -> BaseSet:
    """Map the base set of a version folder.

    Args:
        folder: The version folder.
    """
    sizes: Any = json.loads((folder / CLASS_SIZES_FILE).read_text(encoding="utf-8"))
    # Plain arrays, because slices of numpy's memmap class are many times slower.
    embeddings = np.asarray(np.load(folder / EMBEDDINGS_FILE, mmap_mode="r"))
    return BaseSet(embeddings, sizes, np.asarray(np.memmap(folder / NAMES_FILE, np.uint8, mode="r")))
