"""Files of many pieces of metadata. Each function takes the file's largest size, in bytes."""

from __future__ import annotations

import base64
import struct
import zlib

from tests.corpus import encode, photograph
from tests.heavy.boxes import AVIF, HEIF, box, coded, described, still
from tests.heavy.containers import (
    ASCII,
    JPEG_START,
    RATIONAL,
    Tag,
    directory,
    jpeg_segment,
    longs,
    png_chunk,
    riff,
    riff_chunk,
    shorts,
    tiff,
    tiff_data_offset,
)

_EXIF_SEGMENT = jpeg_segment(0xE1, b"Exif\0\0".ljust(36, b"x"))  # 40 bytes
_TINY = 8  # side in pixels
_INFLATED = 2**20  # most bytes to which Pillow inflates a chunk's text
_MOST_SEGMENT = 65_533
_POINTERS = (700, 34_665, 34_675, 34_853, 40_965, 48_129)  # tags that mean something to Pillow in any directory


def jpeg_exif(size: int) -> bytes:
    """Segments that Pillow joins to one block of Exif, copying the whole block for each segment."""
    return _jpeg_with(_EXIF_SEGMENT, size)


def jpeg_comments(size: int) -> bytes:
    return _jpeg_with(jpeg_segment(0xFE), size)


def jpeg_fill_bytes(size: int) -> bytes:
    """Bytes between two segments, which Pillow reads one by one."""
    return _jpeg_with(b"\xff", size)


def jpeg_quantization_tables(size: int) -> bytes:
    tables = (_MOST_SEGMENT // 65) * (b"\0" + b"\x01" * 64)
    return _jpeg_with(jpeg_segment(0xDB, tables), size)


def jpeg_photoshop_blocks(size: int) -> bytes:
    """Blocks of an empty name and no data."""
    block = b"8BIM" + b"\x04\x04" + bytes(2) + bytes(4)
    return _jpeg_with(jpeg_segment(0xED, b"Photoshop 3.0\0" + block * (65_000 // len(block))), size)


def jpeg_profiles(size: int) -> bytes:
    """Parts of a color profile."""
    return _jpeg_with(jpeg_segment(0xE2, b"ICC_PROFILE\0\x01\xff"), size)


def mpo_entries(size: int) -> bytes:
    """Entries of pictures in a multi-picture file."""
    count = min(size, 60_000) // 16
    tags = [Tag(0xB000, 7, b"0100"), longs(0xB001, count), Tag(0xB002, 7, bytes(16 * count))]
    return _jpeg_with(jpeg_segment(0xE2, b"MPF\0" + tiff(tags)), size, times=1)


def png_empty_chunks(size: int) -> bytes:
    return _png_with(png_chunk(b"prVt"), size)


def png_empty_data(size: int) -> bytes:
    """Chunks of pixels without a byte, before the first one that has any."""
    data = encode(photograph(), "PNG")
    place = data.index(b"IDAT") - 4
    first, rest = data[place:], png_chunk(b"IDAT")
    length = int.from_bytes(first[:4], "big")
    one, others = png_chunk(b"IDAT", first[8:9]), png_chunk(b"IDAT", first[9 : 8 + length])
    return data[:place] + one + rest * (size // len(rest)) + others + png_chunk(b"IEND")


def png_chunks_after_pixels(size: int) -> bytes:
    data = encode(photograph(), "PNG")
    chunk = png_chunk(b"tEXt", b"a\0")
    return data[:-12] + chunk * (size // len(chunk)) + data[-12:]


def png_texts(size: int) -> bytes:
    """Texts, each under another keyword."""
    texts = (png_chunk(b"tEXt", b"%08x\0" % number) for number in range(size // 21))
    return _png_with(b"".join(texts), size, times=1)


def png_inflated_profiles(size: int) -> bytes:
    """Profiles that are 1 KB and inflated to 1 MiB, one after the other."""
    return _png_with(png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(_INFLATED), 9)), size)


def png_inflated_texts_that_do_not_count(size: int) -> bytes:
    """Texts in a wrong encoding, which Pillow inflates and drops without counting them."""
    return _png_with(png_chunk(b"iTXt", b"a\0\x01\0\0\0" + zlib.compress(b"\xff" * _INFLATED, 9)), size)


def apng_animations(size: int) -> bytes:
    """Chunks that begin an animation, each overruled by the next."""
    return _png_with(png_chunk(b"acTL", struct.pack(">II", 2, 0)), size)


def gif_comments(size: int) -> bytes:
    return _gif_with(b"!\xfe\x01x\0", size)


def gif_extensions(size: int) -> bytes:
    return _gif_with(b"!\x01\0\0", size)


def gif_sub_blocks(size: int) -> bytes:
    """One extension of blocks of one byte."""
    return _gif_with(b"!\x01" + b"\x01x" * (size // 2) + b"\0", size, times=1)


def tiff_strip_offsets(size: int) -> bytes:
    """Strip offsets of an image of 8 x 8 pixels."""
    return _tiff([longs(273, [8] * (size // 4)), longs(278, _TINY // 2)])


def tiff_tile_offsets(size: int) -> bytes:
    return _tiff([longs(322, 16), longs(323, 16), longs(324, [8] * (size // 4))])


def tiff_resolution(size: int) -> bytes:
    """Fractions in place of a single one."""
    return _tiff([longs(273, 8), Tag(282, RATIONAL, struct.pack("<2I", 3, 7) * (size // 8))])


def tiff_bits_per_sample(size: int) -> bytes:
    return _tiff([longs(273, 8), shorts(258, *[8] * (size // 2))])


def tiff_exif_directories(size: int) -> bytes:
    """Directories of Exif, GPS and more at one place, with fractions that are read one by one."""
    start = tiff_data_offset() + _TINY**2
    outside, entries = directory([Tag(0x9000, RATIONAL, struct.pack("<2I", 3, 7) * (size // 8))], start)
    pointers = [longs(number, start + len(outside)) for number in (0x8769, 0x8825, 0xA005)]
    return _tiff([longs(273, 8), *pointers], directories=[outside, entries])


def tiff_entries(size: int) -> bytes:
    """Entries of a directory: at most 65,535."""
    return _tiff([longs(273, 8), *_many_tags(min(size // 12, 65_000))])


def bigtiff_entries(size: int) -> bytes:
    """Entries of one directory, of types that are unknown."""
    tags = [longs(273, 16), *_many_tags(min(size // 20, 65_000))]
    return _tiff(tags * max(1, size // (20 * len(tags))), big=True)


def webp_chunks(size: int) -> bytes:
    """Chunks of unknown kinds, after the picture."""
    data = encode(photograph().resize((_TINY, _TINY)), "WEBP")[12:]
    extended = riff_chunk(b"VP8X", bytes(4) + (_TINY - 1).to_bytes(3, "little") * 2)
    return riff(extended, data, riff_chunk(b"none", b"") * (size // 8))


def webp_frames(size: int) -> bytes:
    """Frames of one pixel; only the first is decoded."""
    frame = encode(photograph().resize((1, 1)), "WEBP", lossless=True)[12:]
    chunk = riff_chunk(b"ANMF", bytes(16) + frame)
    extended = riff_chunk(b"VP8X", b"\x02\0\0\0" + bytes(6))
    return riff(extended, riff_chunk(b"ANIM", bytes(6)), chunk * (size // len(chunk)))


def heic_boxes(size: int) -> bytes:
    """Empty boxes before the picture."""
    return still(coded(HEIF, 64), None, box(b"free") * (size // 8))


def heic_descriptions(size: int) -> bytes:
    """Metadata that are read again and again: the same bytes, as often as there may be items."""
    return described(coded(HEIF, 64), 900, size)


def avif_descriptions(size: int) -> bytes:
    return described(coded(AVIF, 64), 900, size)


def base64_words(size: int) -> bytes:
    """The text of a file with a space after each letter."""
    data = encode(photograph(), "JPEG")
    return b" ".join(struct.unpack_from(f"{size // 8 * 4}c", base64.b64encode(data.ljust(size // 8 * 3, b"\0"))))


def _jpeg_with(piece: bytes, size: int, times: int = 0) -> bytes:
    data = encode(photograph(), "JPEG")
    return JPEG_START + piece * (times or size // len(piece)) + data[2:]


def _png_with(piece: bytes, size: int, times: int = 0) -> bytes:
    data = encode(photograph(), "PNG")
    return data[:33] + piece * (times or size // len(piece)) + data[33:]


def _gif_with(piece: bytes, size: int, times: int = 0) -> bytes:
    data = encode(photograph(), "GIF")
    place = 13 + (3 << (data[10] & 7) + 1)  # after the palette
    return data[:place] + piece * (times or size // len(piece)) + data[place:]


def _tiff(tags: list[Tag], *, directories: list[bytes] | None = None, big: bool = False) -> bytes:
    """Make a grey image of 8 x 8 pixels with more tags."""
    own = [longs(256, _TINY), longs(257, _TINY), shorts(258, 8), shorts(259, 1), shorts(262, 1), shorts(277, 1),
           longs(278, _TINY), longs(279, _TINY**2)]  # fmt: skip
    numbers = {tag.number for tag in tags}
    all_tags = [*(tag for tag in own if tag.number not in numbers), *tags]
    if not any(tag.number > 40_000 for tag in tags):
        all_tags.sort()
    return tiff(all_tags, bytes(_TINY**2), directories=directories or [], big=big)


def _many_tags(count: int) -> list[Tag]:
    return [Tag(number, ASCII, b"x") for number in range(500, 500 + count) if number not in _POINTERS]
