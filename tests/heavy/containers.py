"""Containers of image files, written by hand: they hold data that an encoder would never write."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"
# Types of TIFF values.
ASCII, SHORT, LONG, RATIONAL, UNDEFINED = 2, 3, 4, 5, 7
TYPE_BYTES = {1: 1, ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, UNDEFINED: 1, 16: 8}
_TIFF_HEADER_BYTES, _BIG_TIFF_HEADER_BYTES = 8, 16


def jpeg_segment(marker: int, data: bytes = b"") -> bytes:
    """Make a segment; ``marker`` is its second byte."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    """Make a chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, *, bits: int = 8, color: int = 0, interlaced: bool = False) -> bytes:
    """Make the start of a PNG file; ``color`` is 0 for grey, 2 for RGB, 3 for a palette, 6 for RGB with alpha."""
    return PNG_START + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced))


def riff(*chunks: bytes) -> bytes:
    """Make a WebP file of chunks."""
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff_chunk(kind: bytes, data: bytes) -> bytes:
    """Make a chunk of a WebP file, padded to an even length."""
    return kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)


class Tag(NamedTuple):
    """A tag of a TIFF directory: its number, and the type and bytes of its values."""

    number: int
    kind: int
    values: bytes


def shorts(number: int, *values: int) -> Tag:
    """Make a tag of 16-bit values."""
    return Tag(number, SHORT, struct.pack(f"<{len(values)}H", *values))


def longs(number: int, values: int | Sequence[int]) -> Tag:
    """Make a tag of 32-bit values."""
    values = [values] if isinstance(values, int) else values
    return Tag(number, LONG, struct.pack(f"<{len(values)}I", *values))


def tiff(tags: Iterable[Tag], data: bytes = b"", *, directories: Sequence[bytes] = (), big: bool = False) -> bytes:
    """Make a little-endian TIFF file whose ``data`` begin at ``tiff_data_offset``.

    Args:
        tags: Tags of the first directory, in the order of the file.
        data: The data to which the tags' offsets point.
        directories: More directories, as ``directory`` makes them, right after ``data``.
        big: Whether to make a BigTIFF file.
    """
    start = tiff_data_offset(big=big)
    body = data + b"".join(directories)
    place = start + len(body)
    outside, entries = directory(tags, place, big=big)
    first = place + len(outside)
    header = struct.pack("<2sHHHQ", b"II", 43, 8, 0, first) if big else struct.pack("<2sHI", b"II", 42, first)
    return header + body + outside + entries


def tiff_data_offset(*, big: bool = False) -> int:
    """Return the offset of ``data`` in ``tiff``."""
    return _BIG_TIFF_HEADER_BYTES if big else _TIFF_HEADER_BYTES


def directory(tags: Iterable[Tag], place: int, *, big: bool = False) -> tuple[bytes, bytes]:
    """Make a directory: from ``place`` on, the values that do not fit into its entries, then the entries."""
    inline, entry, count = (8, "<HHQ", "<Q") if big else (4, "<HHI", "<H")
    outside, entries, number = [], [], 0
    for tag in tags:
        head = struct.pack(entry, tag.number, tag.kind, len(tag.values) // TYPE_BYTES[tag.kind])
        if len(tag.values) <= inline:
            entries.append(head + tag.values.ljust(inline, b"\0"))
        else:
            entries.append(head + place.to_bytes(inline, "little"))
            outside.append(tag.values)
            place += len(tag.values)
        number += 1
    return b"".join(outside), struct.pack(count, number) + b"".join(entries) + bytes(inline)


def deflate(*blocks: tuple[bytes, int]) -> bytes:
    """Compress blocks, each repeated, in the time of compressing each block once."""
    pieces, checksum = [], 1
    for block, times in blocks:
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
        pieces.append((compressor.compress(block) + compressor.flush(zlib.Z_FULL_FLUSH)) * times)
        for _ in range(times):
            checksum = zlib.adler32(block, checksum)
    return b"\x78\x01" + b"".join(pieces) + b"\x03\0" + struct.pack(">I", checksum)


class Bits:
    """Bits written from the lowest of each byte on, as in WebP and GIF."""

    def __init__(self) -> None:
        self._value, self._count = 0, 0
        self._bytes = bytearray()

    def write(self, value: int, bits: int) -> None:
        """Add a number of this many bits, the lowest first."""
        self._value |= value << self._count
        self._count += bits
        whole = self._count // 8
        if whole:
            self._bytes += (self._value & ((1 << 8 * whole) - 1)).to_bytes(whole, "little")
            self._value >>= 8 * whole
            self._count -= 8 * whole

    def finish(self) -> bytes:
        """Return all bytes, the last padded with zeros."""
        return bytes(self._bytes) + (self._value.to_bytes(1, "little") if self._count else b"")
