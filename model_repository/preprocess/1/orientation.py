"""How an image is to be turned to stand upright, by its Exif data, as cameras and phones write it.

Pillow's own reader of Exif data follows every entry to its value, and a hostile file has 65,535 entries that share a
value of megabytes. This one reads the entry for the orientation alone.
"""

from __future__ import annotations

import binascii
import re
import struct
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

AS_STORED, TURNED = 1, 6  # the usual ones: upright as it is, and a phone's portrait
_TAG = 0x0112
_ENTRY = 12  # bytes: tag, type, count, value
_FORMATS = {1: "B", 3: "H", 4: "L"}  # of a value, by its type
_EXIF_START = re.compile(rb"(Exif\0\0){1,2}")
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_PNG_TEXT, _TEXT_LINES_BEFORE = "Raw profile type exif", 3
_XMP_KEYS = ("XML:com.adobe.xmp", "xmp")


class Turn(NamedTuple):
    """How a stored image becomes upright.

    Attributes:
        method: Pillow's operation.
        text: The operation in words.
        swaps_sides: Whether rows become columns.
        mirrors_x: Whether the upright image's columns run against the direction in which they are stored.
        mirrors_y: So for its rows.
    """

    method: Image.Transpose | None
    text: str
    swaps_sides: bool
    mirrors_x: bool
    mirrors_y: bool


# Source: Exif 2.32 (CIPA DC-008), section 4.6.4, tag Orientation.
TURNS = {
    AS_STORED: Turn(None, "nothing", False, False, False),
    2: Turn(Image.Transpose.FLIP_LEFT_RIGHT, "mirror it left to right", False, True, False),
    3: Turn(Image.Transpose.ROTATE_180, "turn it by 180 degrees", False, True, True),
    4: Turn(Image.Transpose.FLIP_TOP_BOTTOM, "mirror it top to bottom", False, False, True),
    5: Turn(Image.Transpose.TRANSPOSE, "mirror it, then turn it by 90 degrees to the left", True, False, False),
    6: Turn(Image.Transpose.ROTATE_270, "turn it by 90 degrees to the right", True, True, False),
    7: Turn(Image.Transpose.TRANSVERSE, "mirror it, then turn it by 90 degrees to the right", True, True, True),
    8: Turn(Image.Transpose.ROTATE_90, "turn it by 90 degrees to the left", True, False, True),
}  # fmt: skip


_TURNED_BY_DECODERS = ("HEIF", "TIFF")


def read_orientation(image: Image.Image) -> int:
    """Read the orientation of an image from its Exif data or, without any, from its XMP data.

    Some PNG files hold these data after their pixels, where they are found once the image is loaded. A TIFF or HEIC
    file's orientation is not read: its decoder applies it.

    Returns:
        One of ``TURNS``; ``AS_STORED`` for an image that says nothing, or nothing valid.
    """
    info = image.info
    found = _find_in_exif(_exif_bytes(info)) if image.format not in _TURNED_BY_DECODERS else AS_STORED
    if found is None:
        found = _find_in_xmp(info)
    return found if found in TURNS else AS_STORED


def note(orientation: int) -> str:
    """Say that an image was taken as it is stored, though its orientation says otherwise; "" if it does not."""
    if orientation == AS_STORED:
        return ""
    return (
        f"classified as stored, not upright: to see it upright, {TURNS[orientation].text} (EXIF orientation "
        f"{orientation}); this network's preprocessing does not turn images"
    )


def _exif_bytes(info: Mapping[str | tuple[int, int], object]) -> bytes:
    exif = info.get("exif")
    if isinstance(exif, bytes):
        return exif
    text = info.get(_PNG_TEXT)  # as ImageMagick writes it
    if isinstance(text, str):
        try:
            return bytes.fromhex("".join(text.split("\n")[_TEXT_LINES_BEFORE:]))
        except (ValueError, binascii.Error):
            pass
    return b""


def _find_in_exif(data: bytes) -> int | None:
    """Return the orientation in Exif data, whose form is that of a TIFF header; None: there is none."""
    start = _EXIF_START.match(data)
    if start is not None:
        data = data[start.end() :]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    found = None
    try:
        (directory,) = struct.unpack_from(f"{order}L", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, directory)
        for position in range(directory + 2, directory + 2 + _ENTRY * count, _ENTRY):
            tag, kind, values = struct.unpack_from(f"{order}HHL", data, position)
            if tag == _TAG and values == 1 and kind in _FORMATS:
                (found,) = struct.unpack_from(f"{order}{_FORMATS[kind]}", data, position + 8)
    except struct.error:  # the data end early
        pass
    return found


def _find_in_xmp(info: Mapping[str | tuple[int, int], object]) -> int | None:
    for key in _XMP_KEYS:
        data = info.get(key)
        if isinstance(data, str):
            data = data.encode("utf-8", "replace")
        if isinstance(data, bytes) and (match := _XMP.search(data)):
            return int(match[1])
    return None
