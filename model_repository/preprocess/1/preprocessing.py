"""Image file to pixels: the one place where images are decoded, in serving and in export alike."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

# Formats by Pillow's names; JPEG includes the MPO that phones write. The others that Pillow reads are left out: rare as
# photographs, and each is one more decoder that strangers could attack.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
TIFF_BITS_PER_SAMPLE, TIFF_TILE_WIDTH, TIFF_TILE_LENGTH = 258, 322, 323  # the tags' numbers
BASE64_LENGTH = 1.4  # of a text, at most, for each byte of its file: 4/3, and line breaks
GREY_ROWS = 256  # converted at a time, so that the intermediate values of a large image take little memory
JPEG_START, JPEG_END, JPEG_SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
EIGHT_BITS, SIXTEEN_BITS = 8, 16
KEPT_BLOCKS = 4  # of memory, 16 MiB each at most, for each thread: an image, what it is resized by way of, the result
# Reduced decoding: only for networks of at least this side, and images that keep twice the side where they lose half.
REDUCED_MIN_SIZE = 224
REDUCED_TARGET = 2  # sides S that a reduced image keeps
REDUCED_MIN_SIDES = 4  # sides S that an image must have, both ways

# In coded data 0xFF is followed by 0 or a restart marker, D0 to D7; before a marker it may be repeated.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_BARE_MARKERS = (b"\xff\x01", JPEG_START, JPEG_END)  # without a length


class Limits(NamedTuple):
    """What an image file may hold at most; looked up before it is decoded, since a decode can't be interrupted.

    Args:
        file_bytes: Of the file.
        pixels: Width times height, and the size of a TIFF's tile.
        scans: Passes over the whole image in a JPEG, each of which takes time whatever its length.
    """

    file_bytes: int = 64 * 2**20
    pixels: int = 80_000_000
    scans: int = 32


DEFAULT_LIMITS = Limits()


class UndecodableImageError(ValueError):
    """An image can't be decoded; the message is the reason, fit for strangers: no path, no memory address."""


def decode_pixels(
    data: bytes, size: int, *, reduced: bool = False, limits: Limits = DEFAULT_LIMITS
) -> npt.NDArray[np.uint8]:
    """Decode an image file and resize it to a square.

    The first frame or page; RGB by Pillow's ``convert``, alpha dropped; 16-bit grey scaled to 8 bits (value // 257);
    both sides resized with Pillow's bilinear filter, aspect ratio not kept; EXIF orientation not applied.

    Args:
        data: The file's bytes as they are on disk, or their base64 text (line breaks allowed).
        size: Side S of the result in pixels, at least 1.
        reduced: Decode a JPEG with both sides at least ``REDUCED_MIN_SIDES`` * S at a half, quarter or eighth of them,
            though at no less than ``REDUCED_TARGET`` * S, where S is at least ``REDUCED_MIN_SIZE``: faster, and close
            on photographs, but not on patterns as fine as a pixel.
        limits: What is refused without decoding it.

    Returns:
        RGB pixels, uint8 [S, S, 3], 0 to 255; read-only.

    Source:
        Scaled decoding by fewer DCT coefficients: libjpeg's ``scale_num``/``scale_denom``, Pillow's ``Image.draft``.

    Raises:
        UndecodableImageError: Empty, of an unknown format, broken, truncated, or over one of ``limits``.
    """
    if not data:
        raise UndecodableImageError("empty: 0 bytes")
    with _open(data, limits) as image:
        try:
            if reduced:
                _reduce(image, size)
            pixels = _to_rgb(image).resize((size, size), Image.Resampling.BILINEAR)
        except Exception as error:  # Pillow's decoders raise almost any type on broken files
            raise UndecodableImageError(f"broken or truncated {image.format} file") from error
    return np.asarray(pixels)


class BatchDecoder:
    """Decodes N image files, none of which costs another its pixels, several at a time: Pillow releases the GIL.

    Args:
        size: Side S of the results in pixels.
        reduced, limits: As ``decode_pixels`` takes them.
        threads: Files decoded at a time; 0: as many as there are cores for this process.
    """

    def __init__(self, size: int, *, reduced: bool = False, limits: Limits = DEFAULT_LIMITS, threads: int = 0) -> None:
        self._size = size
        self._reduced = reduced
        self._limits = limits
        threads = threads or _available_cores()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        # Pillow's memory goes back to the system after each image otherwise, and half of a decoding's time is spent on
        # getting it again, page by page, where malloc does not keep it (as in Triton's stub).
        Image.core.set_blocks_max(KEPT_BLOCKS * threads)  # type: ignore[attr-defined]

    def decode(self, files: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], list[str]]:
        """Decode files or base64 texts, as ``decode_pixels`` takes them.

        Returns:
            Pixels, uint8 [N, S, S, 3], zeros for an undecodable file; and N reasons, "" for a decoded file.
        """
        pixels, reasons, _ = self.decode_timed(files)
        return pixels, reasons

    def decode_timed(self, files: Sequence[bytes]) -> tuple[npt.NDArray[np.uint8], list[str], list[float]]:
        """Decode as ``decode`` does, and return also how long each file took, in seconds."""
        pixels = np.zeros((len(files), self._size, self._size, 3), np.uint8)
        seconds = [0.0] * len(files)

        def fill(row: int) -> str:
            began = time.perf_counter()
            try:
                pixels[row] = decode_pixels(files[row], self._size, reduced=self._reduced, limits=self._limits)
            except UndecodableImageError as error:
                return str(error)
            finally:
                seconds[row] = time.perf_counter() - began
            return ""

        # One file needs no other thread.
        reasons = list((map if len(files) == 1 else self._pool.map)(fill, range(len(files))))
        return pixels, reasons, seconds


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _open(data: bytes, limits: Limits) -> Image.Image:
    image = _identify(data, limits)
    if image is None and len(data) <= BASE64_LENGTH * limits.file_bytes:
        text = _decode_base64(data)
        if text is not None:
            data, image = text, _identify(text, limits)
    if len(data) > limits.file_bytes:
        raise UndecodableImageError(f"too large: {len(data):,} bytes, at most {limits.file_bytes:,} are decoded")
    if image is None:
        raise UndecodableImageError("no image in a supported format (BMP, GIF, JPEG, PNG, TIFF, WebP)")
    width, height = image.size
    _require_few_pixels(width, height, limits)
    if isinstance(image, TiffImageFile):
        _require_small_tiles(image, limits)
    if isinstance(image, JpegImageFile) and _has_more_scans(data, limits.scans):
        raise UndecodableImageError(f"too slow to decode: more than {limits.scans} scans in a JPEG file")
    return image


def _identify(data: bytes, limits: Limits) -> Image.Image | None:
    canvas = _webp_canvas(data)
    if canvas is not None:  # Pillow has libwebp make it when it opens the file
        _require_few_pixels(*canvas, limits)
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise UndecodableImageError(f"too large: far too many pixels, at most {limits.pixels:,} are decoded") from error
    except UnidentifiedImageError:
        return None
    except Exception as error:  # as above: a known format with a header that breaks its decoder
        raise UndecodableImageError("broken image header") from error


def _decode_base64(data: bytes) -> bytes | None:
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error:
        return None


def _require_few_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        raise UndecodableImageError(f"too large: {width} x {height} pixels, at most {limits.pixels:,} are decoded")


def _require_small_tiles(image: TiffImageFile, limits: Limits) -> None:
    try:
        width, height = (int(image.tag_v2.get(tag, 0)) for tag in (TIFF_TILE_WIDTH, TIFF_TILE_LENGTH))
    except Exception as error:  # a tag of another type than it should have
        raise UndecodableImageError("broken image header") from error
    _require_few_pixels(width, height, limits)


def _webp_canvas(data: bytes) -> tuple[int, int] | None:
    """Read the width and height of a WebP file, in the three forms that its first chunk may have."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    chunk, numbers = data[12:16], data[20:30]
    if chunk == b"VP8X":
        return int.from_bytes(numbers[4:7], "little") + 1, int.from_bytes(numbers[7:10], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(numbers[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        return int.from_bytes(numbers[6:8], "little") & 0x3FFF, int.from_bytes(numbers[8:10], "little") & 0x3FFF
    return None


def _has_more_scans(data: bytes, most: int) -> bool:
    """Say whether a JPEG file has more scans than that; the JPEG standard (ITU-T T.81), section B.1.1."""
    if data.count(JPEG_SCAN) <= most:  # some of which may lie in metadata
        return False
    scans, position = 0, len(JPEG_START)
    while scans <= most:
        marker = _JPEG_MARKER.search(data, position)  # beyond the coded data of a scan, if we are in one
        if marker is None:
            return False
        position = marker.end()
        if marker[0] not in _JPEG_BARE_MARKERS:
            scans += marker[0] == JPEG_SCAN
            position += int.from_bytes(data[position : position + 2], "big")
    return True


def _reduce(image: Image.Image, size: int) -> None:
    if size >= REDUCED_MIN_SIZE and min(image.size) >= REDUCED_MIN_SIDES * size and isinstance(image, JpegImageFile):
        image.draft(None, (REDUCED_TARGET * size, REDUCED_TARGET * size))


def _to_rgb(image: Image.Image) -> Image.Image:
    bits = _grey_bits(image)
    if bits is not None:
        brightest = 2**bits - 1
        values = np.asarray(image)
        eight_bits = np.empty(values.shape, np.uint8)
        for row in range(0, len(values), GREY_ROWS):
            rows = slice(row, row + GREY_ROWS)
            eight_bits[rows] = np.clip(values[rows], 0, brightest).astype(np.int64) * 255 // brightest
        image = Image.fromarray(eight_bits)
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def _grey_bits(image: Image.Image) -> int | None:
    """Tell how many bits a grey image has that has more than 8 and that ``convert`` would clip; None for others."""
    # Mode I has 32 bits, and is what Pillow before 11.3 made of 16-bit PNG, and makes of signed 16-bit TIFF.
    if not image.mode.startswith("I"):
        return None
    bits = int(image.tag_v2.get(TIFF_BITS_PER_SAMPLE, (1,))[0]) if isinstance(image, TiffImageFile) else 16
    return bits if EIGHT_BITS < bits <= SIXTEEN_BITS else None
