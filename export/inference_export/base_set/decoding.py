"""The server's preprocessing, for the export."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from inference_export.regular_files import hash_file
from inference_export.template import MAX_SOURCE_BYTES, load_served_module

# The files that decide an image's pixels. Earlier exports had the first alone.
PIXEL_SOURCES = ("preprocessing.py", "geometry.py", "orientation.py", "heif.py")

_module = load_served_module("preprocess", "preprocessing")
_decoding = load_served_module("preprocess", "decoding")
UndecodableImageError: type[ValueError] = _module.UndecodableImageError
Limits: Any = _module.Limits
DEFAULT_LIMITS: Any = _module.DEFAULT_LIMITS
DEFAULT_GEOMETRY: Any = _module.DEFAULT_GEOMETRY
Geometry: Any = type(DEFAULT_GEOMETRY)


class DecodePixels(Protocol):
    """``decode_pixels`` of the server."""

    def __call__(
        self,
        data: bytes,
        size: int,
        *,
        reduced: bool = False,
        geometry: Any = DEFAULT_GEOMETRY,
        limits: Any = DEFAULT_LIMITS,
    ) -> npt.NDArray[np.uint8]:
        """Decode an image file to pixels, uint8 [S, S, 3]."""


class ReadNote(Protocol):
    """``read_note`` of the server."""

    def __call__(self, data: bytes, geometry: Any, limits: Any = DEFAULT_LIMITS) -> str:
        """Return the note on an image file that is known to decode; "" for nothing."""


class Results(Protocol):
    """``Results`` of the server.

    Attributes:
        pixels: Pixels, uint8 [N, S, S, 3]; zeros for an undecodable file.
        reasons: Why each file has no pixels; "" for a decoded file.
        notes: What to know about each image; "" for nothing.
    """

    pixels: npt.NDArray[np.uint8]
    reasons: list[str]
    notes: list[str]


class Decoders(Protocol):
    """``Decoders`` of the server: a pool of processes, which end with its context."""

    def decode(self, files: Sequence[bytes]) -> Results:
        """Decode N files."""

    def close(self) -> None:
        """End all processes."""

    def __enter__(self) -> Decoders: ...

    def __exit__(self, *_: object) -> None: ...


decode_pixels: DecodePixels = _module.decode_pixels
read_note: ReadNote = _module.read_note


def hash_preprocessing(folder: Path, geometry: Mapping[str, Any]) -> str:
    """Hash what decides an image's pixels: code and geometry.

    Args:
        folder: A version folder of ``preprocess``, or the template's.
        geometry: Values of the server's ``Geometry``; empty for an export of before there was one.

    Raises:
        OSError: A file can't be read.
    """
    sources = [folder / name for name in PIXEL_SOURCES]
    if not geometry:
        return hash_file(sources[0], MAX_SOURCE_BYTES)
    described = [*(hash_file(source, MAX_SOURCE_BYTES) for source in sources), json.dumps(geometry, sort_keys=True)]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()


def open_decoder(
    image_size: int, decode: str, limits: Any = DEFAULT_LIMITS, geometry: Any = DEFAULT_GEOMETRY, processes: int = 0
) -> Decoders:
    """Start decoders.

    Args:
        image_size: Side S of the decoded images in pixels.
        decode: ``exact`` or ``reduced``: how large JPEGs are decoded.
        limits: The server's ``Limits``.
        geometry: The server's ``Geometry``.
        processes: Files decoded at once; 0: one for each core.

    Raises:
        DecodingError: The system refuses to start a process.
    """
    is_reduced = decode == "reduced"
    return cast(
        Decoders,
        _decoding.Decoders(image_size, reduced=is_reduced, geometry=geometry, limits=limits, processes=processes),
    )
