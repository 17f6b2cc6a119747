"""Hostile and broken image files, the same ones each time."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pillow_heif
from PIL import Image

pillow_heif.register_heif_opener()

SEED = 5
FORMATS = ("AVIF", "BMP", "GIF", "HEIF", "JPEG", "PNG", "TIFF", "WEBP")
TRUNCATIONS = 60  # of each file
BIT_FLIPS = 150  # of each file
SIDES = (120, 90)
HEAVY_SHARE = 0.005  # of the sizes that cost


def hostile_files() -> Iterator[tuple[str, bytes]]:
    """Make the files. Each name says what is wrong; some files decode nevertheless."""
    chance = random.Random(SEED)
    good = dict(_good_files())
    yield from _others()
    yield from _bombs()
    yield from _boxes()
    yield from _dimensions(good)
    yield from _metadata(good)
    yield from _heavy()
    for name, data in good.items():
        for step in range(TRUNCATIONS):
            yield f"truncated-{name}-{step}", data[: len(data) * step // TRUNCATIONS]
        for number in range(BIT_FLIPS):
            yield f"flipped-{name}-{number}", _flipped(data, chance, header=number % 2 == 0)
        for other in good:
            if other != name:  # the start of one file with the end of another
                yield f"spliced-{name}-{other}", data[: len(data) // 2] + good[other][len(good[other]) // 2 :]


def photograph() -> Image.Image:
    """Make a picture with edges and gradients."""
    row, column = np.mgrid[0 : SIDES[1], 0 : SIDES[0]]
    waves = [np.sin(row / scale) * np.cos(column / (scale + 2)) for scale in (5, 9, 17)]
    return Image.fromarray(((np.stack(waves, -1) + 1) * 127.5).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode an image."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def progressive_jpeg(scans: int, sides: tuple[int, int] = (2000, 2000)) -> bytes:
    """Make a JPEG with this many scans. Each scan changes nothing, and costs a pass over all blocks."""
    data = encode(Image.new("L", sides), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    scan = data[start:-2]
    return data[:start] + scan * scans + data[-2:]


def png(width: int, height: int, rows: bytes = b"", *, bits: int = 8, color: int = 2) -> bytes:
    """Make a PNG of any dimensions; its data need not fit."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def webp_canvas(width: int, height: int) -> bytes:
    """Make a WebP file with a canvas of any size and a small animation frame."""
    frame = encode(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    extended = b"\x02\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    animation = bytes(6)
    chunks = b"VP8X" + struct.pack("<I", 10) + extended + b"ANIM" + struct.pack("<I", 6) + animation
    place = bytes(6) + bytes(6) + bytes(4)
    chunks += b"ANMF" + struct.pack("<I", len(place) + len(frame)) + place + frame
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def tiled_tiff(tile: int) -> bytes:
    """Make a small TIFF that claims enormous tiles."""
    tags = {256: 16, 257: 16, 258: 8, 259: 1, 262: 1, 277: 1, 322: tile, 323: tile, 324: 8, 325: 64}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<I", 8 + 64) + bytes(64) + struct.pack("<H", len(tags)) + entries + bytes(4)


def _good_files() -> Iterator[tuple[str, bytes]]:
    image = photograph()
    for kind in FORMATS:
        yield kind, encode(image, kind)
    yield "progressive", encode(image, "JPEG", progressive=True)
    yield "CMYK", encode(image.convert("CMYK"), "JPEG")
    yield "palette", encode(image.convert("P"), "PNG")
    yield "deflate", encode(image, "TIFF", compression="tiff_adobe_deflate")
    yield "lossless", encode(image, "WEBP", lossless=True)
    yield "tiles", encode(image, "HEIF", tile_size=64)
    yield "alpha", encode(image.convert("RGBA"), "AVIF")


def _flipped(data: bytes, chance: random.Random, *, header: bool) -> bytes:
    changed = bytearray(data)
    end = min(len(data), 400) if header else len(data)
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(end)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _others() -> Iterator[tuple[str, bytes]]:
    yield "empty", b""
    yield "text", b"This is no image. " * 50
    yield "zeros", bytes(5000)
    yield "pdf", b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n"
    yield "svg", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
    yield "eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) (r) file\n"
    yield "html", b"<html><script>alert(1)</script></html>"
    yield "pickle", b"cos\nsystem\n(S'true'\ntR."
    yield "zip", b"PK\x03\x04" + bytes(100)
    yield "video", b"\0\0\0\x18ftypisom" + bytes(100)
    yield "address", b"https://example.com/a.jpg"
    yield "data-url-without-base64", b"data:image/png,abc"
    for kind in ("ICO", "PPM", "TGA", "PCX"):  # formats that Pillow reads but this project does not
        yield kind.lower(), encode(photograph(), kind)


def _bombs() -> Iterator[tuple[str, bytes]]:
    yield "bomb-png", png(50_000, 50_000, bytes(1_000_000))
    yield "bomb-png-just-under-pillows-limit", png(13_000, 13_000, bytes(1_000_000))
    yield "bomb-png-wide", png(2**31 - 1, 1)
    gif = encode(photograph(), "GIF")
    yield "bomb-gif", gif[:6] + struct.pack("<HH", 65535, 65535) + gif[10:]
    yield "bomb-webp", webp_canvas(16384, 16384)
    yield "bomb-webp-canvas", webp_canvas(2**24, 2**24)
    yield "bomb-tiff", tiled_tiff(2**20)
    yield "bomb-tiff-tile-of-32-bits", tiled_tiff(2**32 - 16)
    yield "bomb-jpeg-scans", progressive_jpeg(800)
    yield "bomb-jpeg-dimensions", _jpeg_of_dimensions(65_000, 65_000)
    yield "bomb-png-text", _png_with_text(50_000_000)


def _boxes() -> Iterator[tuple[str, bytes]]:
    from tests.heavy import boxes  # which builds on this module

    for kind in (boxes.HEIF, boxes.AVIF):
        small, large = boxes.coded(kind, 64), boxes.coded(kind, 1024)
        for side in (0, 1, 65_535, 2**32 - 1):
            yield f"{kind}-claims-{side}", boxes.still(small, (side, side))
            yield f"{kind}-tiles-claim-{side}", boxes.grid(small, 2, 2, (side, side))
        yield f"{kind}-claims-less-than-its-picture", boxes.still(large, (8, 8))
        yield f"{kind}-tiles-beyond-the-edge", boxes.grid(small, 30, 20, (100, 100))
        yield f"{kind}-overlay", boxes.overlay(small, 50)
        yield f"{kind}-cut-within-a-box", boxes.still(small)[:200]
        yield f"{kind}-many-boxes", boxes.still(small, None, boxes.box(b"free") * 5000)
        nested = b""
        for _ in range(2000):
            nested = boxes.full_box(b"meta", nested)
        yield f"{kind}-deep-boxes", boxes.still(small, None, nested)
        itself = boxes.Item(b"grid", bytes(4) + struct.pack(">HH", 64, 64), [1], [1])
        yield f"{kind}-tile-of-itself", boxes.heif(small, [itself], [boxes.size_box(64, 64)])
    for count in (0, 10_000, 10_001, 2**32 - 1):
        yield f"avif-{count}-frames", boxes.frames(count)


def _dimensions(good: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for width, height in ((0, 0), (0, 10), (10, 0), (1, 2**31), (2**32 - 1, 2**32 - 1)):
        yield f"png-{width}x{height}", png(width, height)
    for width, height in ((0, 0), (0, 90), (120, 0), (65535, 1), (1, 65535), (65535, 65535)):
        yield f"jpeg-{width}x{height}", _jpeg_of_dimensions(width, height)
        yield f"gif-{width}x{height}", good["GIF"][:6] + struct.pack("<HH", width, height) + good["GIF"][10:]
        bmp = good["BMP"]
        yield f"bmp-{width}x{height}", bmp[:18] + struct.pack("<ii", width, -height) + bmp[26:]


def _metadata(good: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    jpeg = good["JPEG"]
    for name, segment in (
        ("exif-cut-short", b"Exif\0\0MM\0*\0\0\0\x08"),
        ("exif-endless", b"Exif\0\0II*\0\x08\0\0\0" + b"\xff\xff" + b"\x01" * 100),
        ("exif-points-to-itself", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0"),
        ("icc-broken", b"ICC_PROFILE\0\x01\x01" + b"\xff" * 200),
        ("icc-part-of-none", b"ICC_PROFILE\0\x07\x02" + b"\0" * 50),
        ("adobe-cut-short", b"Adobe\0"),
        ("mpo", b"MPF\0II*\0\x08\0\0\0\x01\0\x01\xb0\x04\0\xff\xff\xff\xff\0\0\0\0"),
    ):
        for marker in (0xE1, 0xE2, 0xEE):
            length = struct.pack(">H", len(segment) + 2)
            yield f"{name}-{marker:x}", jpeg[:2] + bytes([0xFF, marker]) + length + segment + jpeg[2:]
    yield "jpeg-segment-beyond-the-end", jpeg[:2] + b"\xff\xe1\xff\xff" + jpeg[2:40]
    yield "jpeg-segment-of-no-length", jpeg[:2] + b"\xff\xe1\0\0" + jpeg[2:]


def _heavy() -> Iterator[tuple[str, bytes]]:
    from tests.heavy import FILES  # which builds on this module

    for heavy in FILES:
        yield f"heavy-{heavy.name}", heavy.build(HEAVY_SHARE)


def _jpeg_of_dimensions(width: int, height: int) -> bytes:
    data = encode(photograph(), "JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def _png_with_text(size: int) -> bytes:
    data = encode(photograph(), "PNG")
    text = b"comment\0\0" + zlib.compress(bytes(size))
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text + struct.pack(">I", zlib.crc32(b"zTXt" + text))
    return data[:33] + chunk + data[33:]
