"""Files of many pixels. Each function takes their number, and makes the shortest file at the highest cost."""

from __future__ import annotations

import math
import struct

from tests.corpus import webp_canvas
from tests.heavy.boxes import AVIF, HEIF, coded, grid
from tests.heavy.containers import (
    JPEG_END,
    JPEG_START,
    Bits,
    deflate,
    jpeg_segment,
    longs,
    png_chunk,
    png_header,
    riff,
    riff_chunk,
    shorts,
    tiff,
)

MOST_SIDE = 65_500  # of a JPEG, in pixels
_PAETH = 4  # the most expensive filter of a PNG's row
_BLOCK = 8  # side of a JPEG's blocks, pixels
_LONGEST_RUN = 0x7FFF  # blocks without another coefficient
_TILE = 512  # side of a tile as phones make them, pixels
_COPIED = 4096  # most pixels that a lossless WebP repeats


def sides(pixels: int) -> tuple[int, int]:
    """Return width and height of the largest square of at most this many pixels, in whole blocks."""
    side = max(_BLOCK, math.isqrt(pixels) // _BLOCK * _BLOCK)
    return side, side


def bmp_run_lengths(pixels: int) -> bytes:
    """One row, which a Python loop fills pixel by pixel after its first."""
    return _bmp_of_runs(pixels, 1, 8, b"\x01\x01" + b"\0\0" + b"\0\x01")


def bmp_run_lengths_of_4_bits(pixels: int) -> bytes:
    width, height = sides(pixels)
    row = (b"\xff\x12" * (width // 255) + bytes([width % 255, 0x12])) if width % 255 else b"\xff\x12" * (width // 255)
    return _bmp_of_runs(width, height, 4, (row + b"\0\0") * height + b"\0\x01")


def bmp_bits(pixels: int) -> bytes:
    """One bit a pixel."""
    width, height = sides(pixels)
    rows = bytes((width + 31) // 32 * 4 * height)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 1, 0, 0, 0, 0, 2, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 62) + header + b"\0\0\0\0\x01\x02\x03\0" + rows


def gif(pixels: int) -> bytes:
    return _gif(pixels, interlaced=False)


def gif_interlaced(pixels: int) -> bytes:
    return _gif(pixels, interlaced=True)


def jpeg_without_data(pixels: int) -> bytes:
    """A scan that ends before its first block: the rest is grey."""
    return _jpeg(pixels, 0xC0, 3, bytes(_BLOCK))


def jpeg_cmyk(pixels: int) -> bytes:
    return _jpeg(pixels, 0xC0, 4, bytes(2 * 4 * pixels // 8 // _BLOCK**2))


def jpeg_arithmetic(pixels: int) -> bytes:
    """Arithmetic coding, whose decoder takes as many zeros as it needs for all blocks."""
    return _jpeg(pixels, 0xC9, 3, b"")


def jpeg_progressive(pixels: int, scans: int = 31, components: int = 3) -> bytes:
    """As many scans as are allowed. Each scan reads every coefficient and changes none."""
    width, height = sides(pixels)
    blocks = width * height // _BLOCK**2
    parts = [JPEG_START, _quantization(), _frame(0xC2, width, height, components), _huffman_tables()]
    parts.append(_scan(range(components), 0, 0, 0, bytes(components * blocks // 8 + 1)))
    runs = "".join("10" + "1" * 14 for _ in range(blocks // _LONGEST_RUN + 1))
    data = int(runs + "0" * (-len(runs) % 8), 2).to_bytes((len(runs) + 7) // 8, "big").replace(b"\xff", b"\xff\0")
    parts += [_scan([number % components], 1, 63, 0x10, data) for number in range(scans)]
    return b"".join(parts) + JPEG_END


def png_interlaced(pixels: int) -> bytes:
    """Colors of 16 bits with alpha, in seven passes, each row predicted from the one above."""
    return _png(pixels, bits=16, color=6, interlaced=True)


def png_colors_of_16_bits(pixels: int) -> bytes:
    return _png(pixels, bits=16, color=6)


def png_palette(pixels: int) -> bytes:
    """One bit a pixel, of two colors."""
    return _png(pixels, bits=1, color=3)


def tiff_deflated(pixels: int) -> bytes:
    """Every row is a strip, and all strips share the same data."""
    width, height = sides(pixels)
    row = deflate((bytes(3 * width), 1))
    return _tiff(width, height, 8, row, rows=1)


def tiff_lab(pixels: int) -> bytes:
    """Colors that need a transform for each pixel."""
    width, height = sides(pixels)
    row = deflate((bytes(3 * width), 1))
    return _tiff(width, height, 8, row, rows=1, photometric=8)


def tiff_bits(pixels: int) -> bytes:
    """One bit a pixel, in fax coding."""
    width, height = sides(pixels)
    tags = [longs(256, width), longs(257, height), shorts(258, 1), shorts(259, 4), shorts(262, 0), longs(273, 8),
            shorts(277, 1), longs(278, height), longs(279, height // 8)]  # fmt: skip
    return tiff(tags, b"\xff" * (height // 8))  # one bit for each white row


def tiff_progressive_jpeg(pixels: int, scans: int = 90) -> bytes:
    """A progressive JPEG within a TIFF, of as many scans as libtiff allows."""
    width, height = sides(pixels)
    return _tiff(width, height, 7, jpeg_progressive(pixels, scans), rows=height, photometric=6)


def webp_lossless(pixels: int) -> bytes:
    """Pixels that repeat earlier ones. Each is then predicted from its neighbors and changed by two more transforms."""
    side = min(sides(pixels)[0], 16_383)
    bits = Bits()
    bits.write(0x2F, 8)
    bits.write(side - 1, 14)
    bits.write(side - 1, 14)
    bits.write(1, 1)  # alpha is used
    bits.write(0, 3)
    for transform, block_bits, color in ((0, 9, (0xFF, 0, 13, 0)), (1, 9, (0xFF, 1, 1, 1))):
        bits.write(1, 1)
        bits.write(transform, 2)
        bits.write(block_bits - 2, 3)
        bits.write(0, 1)  # no color cache
        _webp_single_color(bits, color)
    bits.write(1, 1)
    bits.write(2, 2)  # green is subtracted
    bits.write(0, 1)  # no more transforms
    bits.write(0, 1)  # no color cache
    bits.write(0, 1)  # one group of codes
    _webp_repeated(bits, side * side)
    return riff(riff_chunk(b"VP8L", bits.finish()))


def webp_lossless_of_one_color(pixels: int) -> bytes:
    """Pixels that take no bits."""
    side = min(sides(pixels)[0], 16_383)
    bits = Bits()
    bits.write(0x2F, 8)
    bits.write(side - 1, 14)
    bits.write(side - 1, 14)
    bits.write(1, 1)
    bits.write(0, 3)
    bits.write(0, 3)  # no transform, no color cache, one group of codes
    _webp_single_color(bits, (1, 2, 3, 4))
    return riff(riff_chunk(b"VP8L", bits.finish()))


def webp_lossy(pixels: int) -> bytes:
    """Macroblocks of no coefficients, in zeros."""
    side = min(sides(pixels)[0], 16_383)
    blocks = ((side + 15) // 16) ** 2
    first = bytes(min(blocks + 64, 2**19 - 1))
    tag = (len(first) << 5 | 1 << 4).to_bytes(3, "little")  # a key frame that is shown
    frame = tag + b"\x9d\x01\x2a" + struct.pack("<HH", side, side) + first + bytes(8 * blocks)
    return riff(riff_chunk(b"VP8 ", frame))


def webp_animation(pixels: int) -> bytes:
    """A large canvas, and a frame of one pixel."""
    side = min(sides(pixels)[0], 16_383)
    return webp_canvas(side, side)


def heic_tiles(pixels: int) -> bytes:
    """Tiles of noise, which share their data."""
    return _tiles(HEIF, pixels)


def avif_tiles(pixels: int) -> bytes:
    return _tiles(AVIF, pixels)


def _tiles(kind: str, pixels: int) -> bytes:
    count = max(1, math.isqrt(pixels) // _TILE)
    return grid(coded(kind, _TILE, noisy=True), count, count)


def _bmp_of_runs(width: int, height: int, bits: int, runs: bytes) -> bytes:
    colors = 1 << bits
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 1 if bits == 8 else 2, 0, 0, 0, colors, 0)
    palette = b"\x01\x02\x03\0" * colors
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + len(palette)) + header + palette + runs


def _gif(pixels: int, *, interlaced: bool) -> bytes:
    width, height = sides(pixels)
    bits, left, codes = Bits(), width * height, 0
    while left > 0:  # each code repeats one pixel more than the code before it, until the table is full
        bits.write(256, 9 if codes == 0 else 12)
        for codes in range(1, 4096 - 256):
            bits.write(0 if codes == 1 else 256 + codes, min(max((256 + codes).bit_length(), 9), 12))
            left -= codes
            if left <= 0:
                break
    bits.write(257, 12)
    data = bits.finish()
    blocks = b"".join(
        bytes([len(data[start : start + 255])]) + data[start : start + 255] for start in range(0, len(data), 255)
    )
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\x01\x02\x03\x04\x05\x06"
    return screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, interlaced << 6) + b"\x08" + blocks + b"\0;"


def _quantization() -> bytes:
    return jpeg_segment(0xDB, b"\0" + b"\x01" * 64)


def _frame(marker: int, width: int, height: int, components: int) -> bytes:
    layout = b"".join(bytes([number + 1, 0x11, 0]) for number in range(components))
    return jpeg_segment(marker, struct.pack(">BHHB", 8, height, width, components) + layout)


def _huffman_tables() -> bytes:
    """One bit for no difference and for the end of a block, two bits for the longest run of ended blocks."""
    direct = b"\0" + bytes([1, *[0] * 15]) + b"\0"
    alternating = b"\x10" + bytes([1, 1, *[0] * 14]) + b"\0\xe0"
    return jpeg_segment(0xC4, direct + alternating)


def _scan(components: range | list[int], first: int, last: int, approximation: int, data: bytes) -> bytes:
    layout = b"".join(bytes([number + 1, 0]) for number in components)
    return jpeg_segment(0xDA, bytes([len(components)]) + layout + bytes([first, last, approximation])) + data


def _jpeg(pixels: int, marker: int, components: int, data: bytes) -> bytes:
    width, height = sides(pixels)
    tables = _huffman_tables() if marker == 0xC0 else b""
    frame = _quantization() + _frame(marker, width, height, components)
    return JPEG_START + frame + tables + _scan(range(components), 0, 63, 0, data) + JPEG_END


def _png(pixels: int, *, bits: int, color: int, interlaced: bool = False) -> bytes:
    width, height = sides(pixels)
    channels = {0: 1, 2: 3, 3: 1, 6: 4}[color]
    passes = [(8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2)] if interlaced else [(1, 1)]
    blocks = []
    for across, down in passes:
        row = bytes([_PAETH]) + bytes((width // across * channels * bits + 7) // 8)
        blocks.append((row, height // down))
    data = deflate(*blocks)
    parts = [png_header(width, height, bits=bits, color=color, interlaced=interlaced)]
    if color == 3:
        parts.append(png_chunk(b"PLTE", b"\x01\x02\x03\x04\x05\x06"))
    return b"".join([*parts, png_chunk(b"IDAT", data), png_chunk(b"IEND")])


def _tiff(width: int, height: int, compression: int, strip: bytes, *, rows: int, photometric: int = 2) -> bytes:
    count = -(-height // rows)
    tags = [longs(256, width), longs(257, height), shorts(258, 8, 8, 8), shorts(259, compression),
            shorts(262, photometric), longs(273, [8] * count), shorts(277, 3), longs(278, rows),
            longs(279, [len(strip)] * count)]  # fmt: skip
    return tiff(tags, strip)


def _webp_single_color(bits: Bits, color: tuple[int, int, int, int]) -> None:
    """Write an image of one color (alpha, red, green, blue) in codes of one symbol, which take no bits."""
    alpha, red, green, blue = color
    for symbol in (green, red, blue, alpha, 0):
        _webp_simple_code(bits, symbol)


def _webp_simple_code(bits: Bits, *symbols: int) -> None:
    bits.write(1, 1)
    bits.write(len(symbols) - 1, 1)
    bits.write(1, 1)  # the first symbol has 8 bits
    for symbol in symbols:
        bits.write(symbol, 8)


def _webp_repeated(bits: Bits, pixels: int) -> None:
    """Write an image of one color as copies of the longest length: the first pixel, and then the one before it."""
    # Green and lengths share a code: one literal, and the prefix of lengths from 3,073 to 4,096, each of one bit.
    literal, length = 0, 256 + 23
    bits.write(0, 1)  # a code given by lengths
    bits.write(18 + 1 - 4, 4)  # lengths of the code that gives them: 19 of these, in the order of the standard
    order = (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    for symbol in order:
        bits.write(1 if symbol in (1, 18) else 0, 3)
    bits.write(0, 1)  # all 280 symbols
    # The code of 1 is 0, of 18 (11 to 138 zeros, in 7 bits) is 1.
    at = 0
    for target in (literal, length):
        gap = target - at
        while gap:
            run = min(gap, 138)
            if 0 < gap - run < 11:
                run = gap - 11
            bits.write(1, 1)
            bits.write(run - 11, 7)
            gap -= run
        bits.write(0, 1)
        at = target + 1
    for symbol in (0, 0, 255):
        _webp_simple_code(bits, symbol)
    _webp_simple_code(bits, 1)  # the distance: the pixel before it
    bits.write(0, 1)
    for _ in range((pixels - 1) // _COPIED):
        bits.write(1, 1)
        bits.write(1023, 10)
    for _ in range((pixels - 1) % _COPIED):
        bits.write(0, 1)
