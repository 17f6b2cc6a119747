"""HEIC and AVIF files of boxes written by hand, around a picture that an encoder made (ISO/IEC 14496-12, 23008-12)."""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from tests.corpus import encode

HEIF, AVIF = "HEIF", "AVIF"  # Pillow's names
_BRAND = {HEIF: b"heic", AVIF: b"avif"}
_CODED = {HEIF: b"hvc1", AVIF: b"av01"}
_CODEC_BOX = {HEIF: b"hvcC", AVIF: b"av1C"}
_IN_IDAT = 1  # iloc's construction method
_MOST_SHORT_SIDE = 65_535


def box(kind: bytes, *contents: bytes) -> bytes:
    """Make a box."""
    body = b"".join(contents)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full_box(kind: bytes, *contents: bytes, version: int = 0, flags: int = 0) -> bytes:
    """Make a box with a version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *contents)


def size_box(width: int, height: int) -> bytes:
    """Make the property that tells an item's size."""
    return full_box(b"ispe", struct.pack(">II", width, height))


class Coded(NamedTuple):
    """A coded picture.

    Args:
        kind: ``HEIF`` or ``AVIF``.
        data: The coded data.
        codec: The box with the codec's settings.
        sides: Width and height.
    """

    kind: str
    data: bytes
    codec: bytes
    sides: tuple[int, int]


@functools.cache
def coded(kind: str, side: int, *, noisy: bool = False) -> Coded:
    """Encode a square, of one color or of noise, which costs the most time for each pixel."""
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    image = Image.fromarray(pixels) if noisy else Image.new("RGB", (side, side), (40, 90, 160))
    # The encoders' fastest settings.
    options = {"quality": 90, "enc_params": {"preset": "ultrafast"}} if kind == HEIF else {"quality": 90, "speed": 10}
    file = encode(image, kind, **options)
    start = file.index(_CODEC_BOX[kind]) - 4
    codec = file[start : start + int.from_bytes(file[start : start + 4], "big")]
    return Coded(kind, file[file.index(b"mdat") + 4 :], codec, (side, side))


class Item(NamedTuple):
    """An item of a file.

    Args:
        kind: Its four letters.
        data: Contents of its own, in the box ``idat``; None: the coded picture.
        properties: Numbers of its properties, from 1.
        linked: Numbers of the items that it is put together of, or that it describes.
        link: The kind of this link.
    """

    kind: bytes
    data: bytes | None
    properties: Sequence[int]
    linked: Sequence[int] = ()
    link: bytes = b"dimg"


def heif(picture: Coded, items: Sequence[Item], properties: Sequence[bytes], *extra: bytes) -> bytes:
    """Make a file whose first item is the image.

    Args:
        picture: The coded picture, which items without data of their own share.
        items: The items, numbered from 1.
        properties: The properties, numbered from 1.
        extra: More boxes, in front of the description of the items.
    """
    brand = _BRAND[picture.kind]
    start = box(b"ftyp", brand, bytes(4), b"mif1", brand)
    meta = _meta(items, properties, place=len(start) + 8, length=len(picture.data))
    # The data come first, so that their place does not depend on the rest.
    return start + box(b"mdat", picture.data) + b"".join(extra) + meta


def _meta(items: Sequence[Item], properties: Sequence[bytes], *, place: int, length: int) -> bytes:
    own = b"".join(item.data or b"" for item in items)
    infos, places, links, references, position = [], [], [], [], 0
    for number, item in enumerate(items, 1):
        infos.append(full_box(b"infe", struct.pack(">HH4s", number, 0, item.kind), b"\0", version=2))
        if item.data is None:
            places.append(struct.pack(">HHHHII", number, 0, 0, 1, place, length))
        else:
            places.append(struct.pack(">HHHHII", number, _IN_IDAT, 0, 1, position, len(item.data)))
            position += len(item.data)
        links.append(struct.pack(f">HB{len(item.properties)}B", number, len(item.properties), *item.properties))
        if item.linked:
            count = len(item.linked)
            references.append(box(item.link, struct.pack(f">HH{count}H", number, count, *item.linked)))
    return full_box(
        b"meta",
        full_box(b"hdlr", bytes(4), b"pict", bytes(13)),
        full_box(b"pitm", struct.pack(">H", 1)),
        full_box(b"iloc", b"\x44\0", struct.pack(">H", len(items)), *places, version=1),
        full_box(b"iinf", struct.pack(">H", len(items)), *infos),
        *([full_box(b"iref", *references)] if references else []),
        box(b"iprp", box(b"ipco", *properties), full_box(b"ipma", struct.pack(">I", len(items)), *links)),
        *([box(b"idat", own)] if own else []),
    )


def still(picture: Coded, sides: tuple[int, int] | None = None, *extra: bytes) -> bytes:
    """Make a file of one picture, which may claim another size."""
    item = Item(_CODED[picture.kind], None, [1, 2, 3])
    return heif(picture, [item], [size_box(*(sides or picture.sides)), picture.codec, _depth()], *extra)


def grid(picture: Coded, columns: int, rows: int, sides: tuple[int, int] | None = None) -> bytes:
    """Make a file of equal tiles, each an item of its own with the same data; the image may claim another size."""
    width, height = sides or (columns * picture.sides[0], rows * picture.sides[1])
    is_large = max(width, height) > _MOST_SHORT_SIDE
    layout = struct.pack(">BBBB", 0, is_large, rows - 1, columns - 1)
    layout += struct.pack(">II" if is_large else ">HH", width, height)
    tiles = columns * rows
    items = [Item(b"grid", layout, [4, 3], range(2, tiles + 2))]
    items += [Item(_CODED[picture.kind], None, [1, 2, 3])] * tiles
    return heif(picture, items, [size_box(*picture.sides), picture.codec, _depth(), size_box(width, height)])


def overlay(picture: Coded, times: int) -> bytes:
    """Make a file of one picture laid over itself."""
    layout = struct.pack(">BB4H2H", 0, 0, 0, 0, 0, 0xFFFF, *picture.sides) + bytes(4 * times)
    items = [Item(b"iovl", layout, [1, 3], [2] * times), Item(_CODED[picture.kind], None, [1, 2, 3])]
    return heif(picture, items, [size_box(*picture.sides), picture.codec, _depth()])


def described(picture: Coded, times: int, length: int) -> bytes:
    """Make a file of one picture with this many pieces of metadata, all of them the same bytes."""
    exif = (bytes(4) + b"II*\0\x08\0\0\0").ljust(length, b"\0")
    items = [Item(_CODED[picture.kind], picture.data, [1, 2, 3]), *[Item(b"Exif", None, [], [1], b"cdsc")] * times]
    return heif(picture._replace(data=exif), items, [size_box(*picture.sides), picture.codec, _depth()])


def frames(count: int, side: int = 64) -> bytes:
    """Make an AVIF animation that claims this many frames."""
    image = Image.new("RGB", (side, side), "red")
    file = encode(image, AVIF, save_all=True, append_images=[Image.new("RGB", (side, side), "lime")], speed=10)
    place = file.index(b"stsz") + 12
    return file[:place] + struct.pack(">I", count) + file[place + 4 :]


def _depth() -> bytes:
    return full_box(b"pixi", b"\3\x08\x08\x08")
