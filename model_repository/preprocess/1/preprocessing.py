"""Image file to pixels: the one place where images are decoded, in serving and in export alike."""

from __future__ import annotations

import base64
import binascii
import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

# Formats by Pillow's names; JPEG includes the MPO that phones write. The others that Pillow reads are left out: rare as
# photographs, and each is one more decoder that strangers could attack.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
MAX_IMAGE_PIXELS = 80_000_000
SIXTEEN_TO_EIGHT_BITS = 257  # 65535 / 255


class UndecodableImageError(ValueError):
    """An image can't be decoded; the message is the reason, fit for strangers: no path, no memory address."""


def decode_pixels(data: bytes, size: int) -> npt.NDArray[np.uint8]:
    """Decode an image file and resize it to a square.

    The first frame or page; RGB by Pillow's ``convert``, alpha dropped; 16-bit grey scaled to 8 bits (value // 257);
    both sides resized with Pillow's bilinear filter, aspect ratio not kept; EXIF orientation not applied.

    Args:
        data: The file's bytes as they are on disk, or their base64 text (line breaks allowed).
        size: Side S of the result in pixels, at least 1.

    Returns:
        RGB pixels, uint8 [S, S, 3], 0 to 255; read-only.

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
            pixels = _to_rgb(image).resize((size, size), Image.Resampling.BILINEAR)
        except Exception as error:  # Pillow's decoders raise almost any type on broken files
            raise UndecodableImageError(f"broken or truncated {image.format} file") from error
    return np.asarray(pixels)


def decode_batch(files: Sequence[bytes], size: int) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Decode N image files, none of which costs another its pixels.

    Args:
        files: N files or base64 texts, as ``decode_pixels`` takes them.
        size: Side S of the results in pixels.

    Returns:
        Pixels, uint8 [N, S, S, 3], zeros for an undecodable file; and N reasons, "" for a decoded file.
    """
    pixels = np.zeros((len(files), size, size, 3), np.uint8)
    reasons = [""] * len(files)
    for row, data in enumerate(files):
        try:
            pixels[row] = decode_pixels(data, size)
        except UndecodableImageError as error:
            reasons[row] = str(error)
    return pixels, reasons


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


def _to_rgb(image: Image.Image) -> Image.Image:
    # Pillow before 11.3 opens 16-bit grey PNG in the 32-bit mode I, in which convert() would clip.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        image = Image.fromarray((np.asarray(image) // SIXTEEN_TO_EIGHT_BITS).astype(np.uint8))
    return image.convert("RGB")


def _too_large(what: str) -> str:
    return f"too large: {what}, at most {MAX_IMAGE_PIXELS:,} are decoded"
