"""Image files as lists of pieces, and files built of pieces, with correct lengths and checksums."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from PIL import Image, ImageCms, PngImagePlugin

from tests.corpus import encode, photograph
from tests.heavy.boxes import AVIF, HEIF, Coded, box, coded, described, full_box, grid, still
from tests.heavy.containers import (
    JPEG_START,
    PNG_START,
    TYPE_BYTES,
    Tag,
    jpeg_segment,
    longs,
    png_chunk,
    riff,
    riff_chunk,
    shorts,
    tiff,
    tiff_data_offset,
)

_SCAN = 0xDA
_GIF_HEADER_BYTES, _GIF_IMAGE_BYTES, _GIF_APPLICATION = 13, 9, 0xFF
_MOST_SEGMENT, _MOST_SUB_BLOCK = 65_533, 255
_MOST_TAGS = 65_535
_RAW = -1  # a piece that is in the file as it is
SIDES = (64, 48)


class Piece(NamedTuple):
    """A part of a file.

    Args:
        kind: The format's name for it: a marker, a chunk's name, a tag's number and type.
        data: The contents, without lengths and checksums.
    """

    kind: object
    data: bytes


class Container(NamedTuple):
    """A format's way to store pieces.

    Args:
        kinds: Kinds of pieces that the format knows.
        most_bytes: Largest size of a piece.
        read: Take a file apart.
        build: Make a file.
    """

    kinds: Sequence[object]
    most_bytes: int
    read: Callable[[bytes], list[Piece]]
    build: Callable[[Sequence[Piece]], bytes]


def seeds() -> list[tuple[str, bytes]]:
    """Make ordinary small files in every format, with the metadata that cameras and programs write."""
    image = photograph().resize(SIDES)
    exif = Image.Exif()
    exif[0x0110], exif[0x011A], exif[0x011B], exif[0x0128] = "camera", 72.0, 72.0, 2
    exif.get_ifd(0x8769)[0x9003] = "2024:01:01 00:00:00"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Title", "a picture")
    texts.add_text("Comment", "compressed " * 9, zip=True)
    texts.add_itxt("Author", "somebody", "en", zip=True)
    frames = {"save_all": True, "append_images": [image.rotate(90)]}
    common = {"exif": exif.tobytes(), "icc_profile": profile}
    return [
        ("JPEG", encode(image, "JPEG", comment=b"a picture", xmp=b"<x:xmpmeta/>", **common)),
        ("JPEG", encode(image, "JPEG", progressive=True)),
        ("JPEG", encode(image, "MPO", **frames)),
        ("PNG", encode(image, "PNG", pnginfo=texts, dpi=(72, 72), **common)),
        ("PNG", encode(image.convert("P"), "PNG", **frames)),
        ("GIF", encode(image, "GIF", comment=b"a picture")),
        ("GIF", encode(image, "GIF", loop=0, duration=100, **frames)),
        ("TIFF", encode(image, "TIFF", dpi=(72, 72), **common)),
        ("TIFF", encode(image, "TIFF", compression="tiff_adobe_deflate", tiffinfo={278: 8})),
        ("TIFF", _striped(image.convert("L"))),
        ("WEBP", encode(image, "WEBP", **common)),
        ("WEBP", encode(image, "WEBP", lossless=True, **frames)),
        *((kind, build(coded(kind, 64))) for kind in (AVIF, HEIF) for build in (still, _grid, _described)),
        ("BMP", encode(image, "BMP")),
        ("BMP", _run_lengths(image.convert("P"))),
    ]


def _grid(picture: Coded) -> bytes:
    return grid(picture, 3, 2)


def _described(picture: Coded) -> bytes:
    return described(picture, 2, 40)


def _striped(image: Image.Image) -> bytes:
    """Make a TIFF of eight strips; Pillow would write one strip."""
    width, height = image.size
    rows = height // 8
    offsets = [tiff_data_offset() + width * rows * number for number in range(8)]
    tags = [longs(256, width), longs(257, height), shorts(258, 8), shorts(259, 1), shorts(262, 1), longs(273, offsets),
            shorts(277, 1), longs(278, rows), longs(279, [width * rows] * 8)]  # fmt: skip
    return tiff(tags, image.tobytes())


def _run_lengths(image: Image.Image) -> bytes:
    """Make a BMP of run lengths, which Pillow does not write."""
    width, height = image.size
    runs = b"".join(
        b"".join(bytes([1, pixel]) for pixel in image.tobytes()[row * width : (row + 1) * width]) + b"\0\0"
        for row in range(height)
    )
    start = 54 + 4 * 256
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    palette = b"".join(bytes([shade, shade // 2, 0, 0]) for shade in range(256))
    return b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start) + header + palette + runs + b"\0\x01"


def _read_jpeg(data: bytes) -> list[Piece]:
    pieces, position = [], len(JPEG_START)
    while position < len(data):
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        pieces.append(Piece(marker, data[position + 4 : position + 2 + length]))
        position += 2 + length
        if marker == _SCAN:
            pieces.append(Piece(_RAW, data[position:]))
            break
    return pieces


def _build_jpeg(pieces: Sequence[Piece]) -> bytes:
    return JPEG_START + _join(pieces, lambda piece: jpeg_segment(int(str(piece.kind)), piece.data))


def _join(pieces: Sequence[Piece], encode: Callable[[Piece], bytes]) -> bytes:
    """Write pieces one after the other. Equal pieces, perhaps millions, are encoded once."""
    encode_once = functools.cache(lambda piece: piece.data if piece.kind == _RAW else encode(piece))
    return b"".join(map(encode_once, pieces))


def _read_png(data: bytes) -> list[Piece]:
    pieces, position = [], len(PNG_START)
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        pieces.append(Piece(data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    return pieces


def _build_png(pieces: Sequence[Piece]) -> bytes:
    return PNG_START + _join(pieces, lambda piece: png_chunk(_name(piece), piece.data))


def _read_webp(data: bytes) -> list[Piece]:
    pieces, position = [], 12
    while position < len(data):
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        pieces.append(Piece(data[position : position + 4], data[position + 8 : position + 8 + length]))
        position += 8 + length + length % 2
    return pieces


def _build_webp(pieces: Sequence[Piece]) -> bytes:
    return riff(_join(pieces, lambda piece: riff_chunk(_name(piece), piece.data)))


def _read_gif(data: bytes) -> list[Piece]:
    """Read the header, extensions by their label, and images: descriptor, code size, and data apart from both."""
    position = _GIF_HEADER_BYTES + ((3 << (data[10] & 7) + 1) if data[10] & 0x80 else 0)
    pieces = [Piece(_RAW, data[:position])]
    while data[position : position + 1] not in (b";", b""):
        if data[position] == ord("!"):
            # The name of an application is a block of its own.
            end = position + 2 + (1 + data[position + 2] if data[position + 1] == _GIF_APPLICATION else 0)
            kind, position = data[position:end], end
        else:
            end = position + 1 + _GIF_IMAGE_BYTES
            end += (3 << (data[end - 1] & 7) + 1) if data[end - 1] & 0x80 else 0
            kind, position = data[position : end + 1], end + 1
        blocks = []
        while data[position]:
            blocks.append(data[position + 1 : position + 1 + data[position]])
            position += 1 + data[position]
        position += 1
        pieces.append(Piece(kind, b"".join(blocks)))
    return pieces


def _build_gif(pieces: Sequence[Piece]) -> bytes:
    return _join(pieces, lambda piece: _name(piece) + _sub_blocks(piece.data)) + b";"


def _sub_blocks(data: bytes) -> bytes:
    blocks = (data[start : start + _MOST_SUB_BLOCK] for start in range(0, len(data), _MOST_SUB_BLOCK))
    return b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def _read_tiff(data: bytes) -> list[Piece]:
    """Read the tags of the first directory, and the whole file, so that their offsets stay valid."""
    place = int.from_bytes(data[4:8], "little")
    (count,) = struct.unpack_from("<H", data, place)
    pieces = [Piece(_RAW, data[tiff_data_offset() :])]
    for entry in range(place + 2, place + 2 + 12 * count, 12):
        number, kind, length = struct.unpack_from("<HHI", data, entry)
        size = length * TYPE_BYTES.get(kind, 1)
        start = entry + 8 if size <= 4 else int.from_bytes(data[entry + 8 : entry + 12], "little")
        pieces.append(Piece((number, kind), data[start : start + size]))
    return pieces


def _build_tiff(pieces: Sequence[Piece]) -> bytes:
    tags = [Tag(kind[0], kind[1], data) for kind, data in pieces if isinstance(kind, tuple)][:_MOST_TAGS]
    return tiff(tags, b"".join(data for kind, data in pieces if kind == _RAW))


def _read_heif(data: bytes) -> list[Piece]:
    """Read what the box ``meta`` and its box of properties hold, and the rest as it is: the picture comes first."""
    start = data.index(b"meta") - 4
    pieces = [Piece(_RAW, data[:start])]
    for piece in _read_boxes(data[start + 12 :]):
        if piece.kind != b"iprp":
            pieces.append(piece)
            continue
        properties, links = _read_boxes(piece.data)
        pieces += [*_read_boxes(properties.data), links]
    return pieces


def _read_boxes(data: bytes) -> list[Piece]:
    pieces, position = [], 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        pieces.append(Piece(data[position + 4 : position + 8], data[position + 8 : position + length]))
        position += length
    return pieces


def _build_heif(pieces: Sequence[Piece]) -> bytes:
    def boxes(*, only: Sequence[bytes] = (), but: Sequence[bytes] = ()) -> bytes:
        chosen = [
            piece for piece in pieces if piece.kind != _RAW and (piece.kind in only if only else piece.kind not in but)
        ]
        return _join(chosen, lambda piece: box(_name(piece), piece.data))

    properties = box(b"iprp", box(b"ipco", boxes(only=_HEIF_PROPERTIES)), boxes(only=[b"ipma"]))
    rest = boxes(but=[*_HEIF_PROPERTIES, b"ipma"])
    return b"".join(data for kind, data in pieces if kind == _RAW) + full_box(b"meta", rest, properties)


def _read_bmp(data: bytes) -> list[Piece]:
    return [Piece(_RAW, data[:54]), Piece(_RAW, data[54:])]


def _build_bmp(pieces: Sequence[Piece]) -> bytes:
    return b"".join(data for _, data in pieces)


def _name(piece: Piece) -> bytes:
    assert isinstance(piece.kind, bytes)
    return piece.kind


_PNG_KINDS = (b"IDAT", b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"tEXt", b"zTXt", b"iTXt", b"bKGD",
              b"pHYs", b"sBIT", b"hIST", b"tIME", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"prVt")  # fmt: skip
_GIF_KINDS = tuple(b"!" + bytes([label]) for label in (0x01, 0xF9, 0xFE))
_WEBP_KINDS = (b"VP8X", b"ICCP", b"EXIF", b"XMP ", b"ANIM", b"ANMF", b"ALPH", b"none")
_TIFF_NUMBERS = (254, 258, 270, 273, 278, 279, 282, 284, 305, 317, 320, 322, 323, 324, 325, 330, 338, 339, 34675, 34665)
_TIFF_KINDS = tuple((number, kind) for number in _TIFF_NUMBERS for kind in TYPE_BYTES)
_HEIF_PROPERTIES = (b"ispe", b"pixi", b"hvcC", b"av1C", b"colr", b"irot", b"imir", b"clap", b"auxC", b"pasp")
_HEIF_KINDS = (*_HEIF_PROPERTIES, b"free", b"grpl", b"dinf", b"iref", b"idat", b"infe")

CONTAINERS = {
    AVIF: Container(_HEIF_KINDS, 2**31, _read_heif, _build_heif),
    HEIF: Container(_HEIF_KINDS, 2**31, _read_heif, _build_heif),
    "JPEG": Container(range(0xC0, 0xFF), _MOST_SEGMENT, _read_jpeg, _build_jpeg),
    "PNG": Container(_PNG_KINDS, 2**31, _read_png, _build_png),
    "GIF": Container(_GIF_KINDS, 2**31, _read_gif, _build_gif),
    "TIFF": Container(_TIFF_KINDS, 2**31, _read_tiff, _build_tiff),
    "WEBP": Container(_WEBP_KINDS, 2**31, _read_webp, _build_webp),
    "BMP": Container((), 2**31, _read_bmp, _build_bmp),
}
