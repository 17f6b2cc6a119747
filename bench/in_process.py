"""Decodes in this process as fast as possible, for comparison with decoding in separate processes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image

from inference_export.base_set.decoding import decode_pixels

KEPT_BLOCKS = 4  # blocks of memory that Pillow keeps per thread, as in the server's decoders


class ThreadDecoder:
    """Decodes image files with one thread per core; Pillow releases the GIL.

    Args:
        size: Side S of the results in pixels.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        threads = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(threads)
        Image.core.set_blocks_max(KEPT_BLOCKS * threads)  # type: ignore[attr-defined]

    def decode(self, files: Sequence[bytes]) -> npt.NDArray[np.uint8]:
        """Decode N files to pixels, uint8 [N, S, S, 3]."""
        pixels = np.empty((len(files), self._size, self._size, 3), np.uint8)

        def fill(row: int) -> None:
            pixels[row] = decode_pixels(files[row], self._size)

        list((map if len(files) == 1 else self._pool.map)(fill, range(len(files))))
        return pixels
