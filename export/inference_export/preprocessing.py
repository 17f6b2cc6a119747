"""The server's own preprocessing, for the export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from .regular_files import read_regular_file
from .template import load_served_module

EXACT, REDUCED = "exact", "reduced"

_module = load_served_module("preprocess", "preprocessing")
UndecodableImageError: type[ValueError] = _module.UndecodableImageError
Limits: Any = _module.Limits
DEFAULT_LIMITS: Any = _module.DEFAULT_LIMITS


class DecodePixels(Protocol):
    """``decode_pixels`` of the server."""

    def __call__(
        self, data: bytes, size: int, *, reduced: bool = False, limits: Any = DEFAULT_LIMITS
    ) -> npt.NDArray[np.uint8]:
        """Decode an image file to pixels, uint8 [S, S, 3]."""


class BatchDecoder(Protocol):
    """``BatchDecoder`` of the server."""

    def decode(self, files: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], list[str]]:
        """Decode N files to pixels, uint8 [N, S, S, 3], and N reasons, "" for a decoded file."""


decode_pixels: DecodePixels = _module.decode_pixels


def open_decoder(image_size: int, decode: str, limits: Any = DEFAULT_LIMITS) -> BatchDecoder:
    """Make a decoder for images of side S in pixels, ``exact`` or ``reduced``, on all cores."""
    return cast(BatchDecoder, _module.BatchDecoder(image_size, reduced=decode == REDUCED, limits=limits))


def read_files(files: Sequence[Path]) -> tuple[list[bytes], list[str]]:
    """Read N files: their bytes, and N reasons, "" for a file that was read; one that was not is empty."""
    contents, failures = [], []
    for file in files:
        try:
            contents.append(read_regular_file(file))
            failures.append("")
        except OSError as error:
            contents.append(b"")
            failures.append(error.strerror or "unreadable")
    return contents, failures


def decode_files(decoder: BatchDecoder, files: Sequence[Path]) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Read and decode N image files to pixels, uint8 [N, S, S, 3], and N reasons, "" for a decoded file."""
    contents, failures = read_files(files)
    pixels, reasons = decoder.decode(contents)
    return pixels, [failure or reason for failure, reason in zip(failures, reasons, strict=True)]
