"""Image file to pixels: the one place where images are decoded, in serving and in export alike."""

from __future__ import annotations

import base64
import binascii
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

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
MAX_IMAGE_PIXELS = 80_000_000
TIFF_BITS_PER_SAMPLE = 258  # the tag's number
EIGHT_BITS, SIXTEEN_BITS = 8, 16
KEPT_BLOCKS = 4  # of memory, 16 MiB each at most, for each thread: an image, what it is resized by way of, the result
# Reduced decoding: only for networks of at least this side, and images that keep twice the side where they lose half.
REDUCED_MIN_SIZE = 224
REDUCED_TARGET = 2  # sides S that a reduced image keeps
REDUCED_MIN_SIDES = 4  # sides S that an image must have, both ways


class UndecodableImageError(ValueError):
    """An image can't be decoded; the message is the reason, fit for strangers: no path, no memory address."""


def decode_pixels(data: bytes, size: int, *, reduced: bool = False) -> npt.NDArray[np.uint8]:
    """Decode an image file and resize it to a square.

    The first frame or page; RGB by Pillow's ``convert``, alpha dropped; 16-bit grey scaled to 8 bits (value // 257);
    both sides resized with Pillow's bilinear filter, aspect ratio not kept; EXIF orientation not applied.

    Args:
        data: The file's bytes as they are on disk, or their base64 text (line breaks allowed).
        size: Side S of the result in pixels, at least 1.
        reduced: Decode a JPEG with both sides at least ``REDUCED_MIN_SIDES`` * S at a half, quarter or eighth of them,
            though at no less than ``REDUCED_TARGET`` * S, where S is at least ``REDUCED_MIN_SIZE``: faster, and close
            on photographs, but not on patterns as fine as a pixel.

    Returns:
        RGB pixels, uint8 [S, S, 3], 0 to 255; read-only.

    Source:
        Scaled decoding by fewer DCT coefficients: libjpeg's ``scale_num``/``scale_denom``, Pillow's ``Image.draft``.

    Raises:
        UndecodableImageError: Empty, of an unknown format, broken, truncated, or over ``MAX_IMAGE_PIXELS``.
    """
    if not data:
        raise UndecodableImageError("empty: 0 bytes")
    with _open(data) as image:
        width, height = image.size
        if width * height > MAX_IMAGE_PIXELS:
            raise UndecodableImageError(_too_large(f"{width} x {height} pixels"))
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
        reduced: As ``decode_pixels`` takes it.
        threads: Files decoded at a time; 0: as many as there are cores for this process.
    """

    def __init__(self, size: int, *, reduced: bool = False, threads: int = 0) -> None:
        self._size = size
        self._reduced = reduced
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
        pixels = np.zeros((len(files), self._size, self._size, 3), np.uint8)

        def fill(row: int) -> str:
            try:
                pixels[row] = decode_pixels(files[row], self._size, reduced=self._reduced)
            except UndecodableImageError as error:
                return str(error)
            return ""

        # One file needs no other thread.
        return pixels, list((map if len(files) == 1 else self._pool.map)(fill, range(len(files))))


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _open(data: bytes) -> Image.Image:
    image = _identify(data)
    if image is None:
        text = _decode_base64(data)
        image = None if text is None else _identify(text)
    if image is None:
        raise UndecodableImageError("no image in a supported format (BMP, GIF, JPEG, PNG, TIFF, WebP)")
    return image


def _identify(data: bytes) -> Image.Image | None:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise UndecodableImageError(_too_large("far too many pixels")) from error
    except UnidentifiedImageError:
        return None
    except Exception as error:  # as above: a known format with a header that breaks its decoder
        raise UndecodableImageError("broken image header") from error


def _decode_base64(data: bytes) -> bytes | None:
    try:
        return base64.b64decode(b"".join(data.split()), validate=True)
    except binascii.Error:
        return None


def _reduce(image: Image.Image, size: int) -> None:
    if size >= REDUCED_MIN_SIZE and min(image.size) >= REDUCED_MIN_SIDES * size and isinstance(image, JpegImageFile):
        image.draft(None, (REDUCED_TARGET * size, REDUCED_TARGET * size))


def _to_rgb(image: Image.Image) -> Image.Image:
    bits = _grey_bits(image)
    if bits is not None:
        brightest = 2**bits - 1
        values = np.clip(np.asarray(image), 0, brightest).astype(np.int64) * 255 // brightest
        image = Image.fromarray(values.astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def _grey_bits(image: Image.Image) -> int | None:
    """Tell how many bits a grey image has that has more than 8 and that ``convert`` would clip; None for others."""
    # Mode I has 32 bits, and is what Pillow before 11.3 made of 16-bit PNG, and makes of signed 16-bit TIFF.
    if not image.mode.startswith("I"):
        return None
    bits = int(image.tag_v2.get(TIFF_BITS_PER_SAMPLE, (1,))[0]) if isinstance(image, TiffImageFile) else 16
    return bits if EIGHT_BITS < bits <= SIXTEEN_BITS else None


def _too_large(what: str) -> str:
    return f"too large: {what}, at most {MAX_IMAGE_PIXELS:,} are decoded"
