"""The server's preprocessing, for the export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from inference_export.template import load_served_module

_module = load_served_module("preprocess", "preprocessing")
_decoding = load_served_module("preprocess", "decoding")
UndecodableImageError: type[ValueError] = _module.UndecodableImageError
Limits: Any = _module.Limits
DEFAULT_LIMITS: Any = _module.DEFAULT_LIMITS


class DecodePixels(Protocol):
    """``decode_pixels`` of the server."""

    def __call__(
        self, data: bytes, size: int, *, reduced: bool = False, limits: Any = DEFAULT_LIMITS
    ) -> npt.NDArray[np.uint8]:
        """Decode an image file to pixels, uint8 [S, S, 3]."""


class Decoders(Protocol):
    """``Decoders`` of the server: a pool of processes, which end with its context."""

    def decode(self, files: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], list[str]]:
        """Decode N files. Return pixels, uint8 [N, S, S, 3], and N reasons, "" for a decoded file."""

    def __enter__(self) -> Decoders: ...

    def __exit__(self, *_: object) -> None: ...


decode_pixels: DecodePixels = _module.decode_pixels


def open_decoder(image_size: int, decode: str, limits: Any = DEFAULT_LIMITS) -> Decoders:
    """Start decoders on all cores.

    Args:
        image_size: Side S of the decoded images in pixels.
        decode: ``exact`` or ``reduced``: how large JPEGs are decoded.
        limits: The server's ``Limits``.

    Raises:
        DecodingError: The system refuses to start a process.
    """
    return cast(Decoders, _decoding.Decoders(image_size, reduced=decode == "reduced", limits=limits))
