"""Files whose data are read again and again. Each function takes the number of times."""

from __future__ import annotations

from tests.corpus import encode, photograph, progressive_jpeg
from tests.heavy.boxes import HEIF, coded, grid, overlay
from tests.heavy.containers import JPEG_START, deflate, jpeg_segment, longs, shorts, tiff

_ROW = 8  # pixels
_MOST_STRIP = 2**20  # bytes that libtiff reads without checking a strip's size


def tiff_strips_over_each_other(times: int, side: int = 3000) -> bytes:
    """Strips of almost all rows: the first, then the last row, then the first again, and so on."""
    tags = [longs(256, side), longs(257, side), shorts(258, 8), shorts(259, 1), shorts(262, 1),
            longs(273, [8] * 2 * times), shorts(277, 1), longs(278, side - 1),
            longs(279, [side * side] * 2 * times)]  # fmt: skip
    return tiff(tags, bytes(side * side))


def tiff_tiles_over_each_other(times: int, side: int = 3000) -> bytes:
    """Tiles of the whole image but one column."""
    tags = [longs(256, side), longs(257, side), shorts(258, 8), shorts(259, 1), shorts(262, 1), shorts(277, 1),
            longs(322, side - 1), longs(323, side), longs(324, [8] * 2 * times),
            longs(325, [side * side] * 2 * times)]  # fmt: skip
    return tiff(tags, bytes(side * side))


def tiff_strips_of_reversed_bits(times: int) -> bytes:
    """Strips of one short row. Each first reverses the bits of a megabyte."""
    row = deflate((bytes(_ROW), 1))
    data = bytes(int(f"{byte:08b}"[::-1], 2) for byte in row).ljust(_MOST_STRIP, b"\0")
    return _short_strips(times, data, compression=8, order=2)


def tiff_strips_of_empty_blocks(times: int) -> bytes:
    """Strips of one short row, after a megabyte of empty blocks."""
    row = deflate((bytes(_ROW), 1))
    empty = b"\0\0\0\xff\xff"
    data = row[:2] + empty * ((_MOST_STRIP - len(row)) // len(empty)) + row[2:]
    return _short_strips(times, data, compression=8)


def tiff_strips_of_tables(times: int) -> bytes:
    """Strips that are JPEG files of 8 x 8 pixels, each with a megabyte of tables."""
    jpeg = encode(photograph().convert("L").resize((_ROW, _ROW)), "JPEG")
    tables = jpeg_segment(0xDB, (b"\0" + b"\x01" * 64) * 1000)
    data = JPEG_START + tables * (_MOST_STRIP // len(tables)) + jpeg[2:]
    return _short_strips(times, data, compression=7, rows=_ROW)


def jpeg_scans(times: int) -> bytes:
    """Scans of a progressive JPEG, more than are allowed."""
    return progressive_jpeg(times)


def heic_overlays(times: int) -> bytes:
    """A picture of noise laid over itself."""
    return overlay(coded(HEIF, 512, noisy=True), times)


def heic_tiles_over_the_edge(times: int) -> bytes:
    """A small image of large tiles, most of them beyond its edge."""
    rows = min(256, -(-times // 4))
    return grid(coded(HEIF, 512, noisy=True), 4, rows, (64, 64))


def _short_strips(times: int, data: bytes, *, compression: int, order: int = 1, rows: int = 1) -> bytes:
    tags = [longs(256, _ROW), longs(257, times * rows), shorts(258, 8), shorts(259, compression), shorts(262, 1),
            shorts(266, order), longs(273, [8] * times), shorts(277, 1), longs(278, rows),
            longs(279, [len(data)] * times)]  # fmt: skip
    return tiff(tags, data)
