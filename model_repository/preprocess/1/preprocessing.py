"""Decodes image files to pixels: the only place that does so, for serving and export alike."""

from __future__ import annotations

import io
import itertools
import re
from typing import TYPE_CHECKING, NamedTuple

import base64_text
import heif
import numpy as np
import other_formats
from geometry import DEFAULT_GEOMETRY, UPRIGHT, Geometry, fit, stored_sides_to_keep, working_bytes
from orientation import AS_STORED, TURNED, note, read_orientation
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile
from reasons import BROKEN, EMPTY, TOO_LARGE, TOO_SLOW, UNSUPPORTED, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

# Pillow's names; JPEG includes the MPO that phones write. AVIF and HEIC are in heif.py. Pillow's other formats are left
# out: photographs rarely have them, and strangers could attack their decoders.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
BASE64_LENGTH = 1.4  # longest text for each byte of its file: 4/3, and line breaks
GREY_ROWS = 256  # converted at a time, so that intermediate values take little memory
EIGHT_BITS, SIXTEEN_BITS = 8, 16
JPEG_START, JPEG_END, JPEG_SCAN = b"\xff\xd8", b"\xff\xd9", b"\xff\xda"
PNG_START, PNG_PIXELS, PNG_END, PNG_CHUNK_FRAME_BYTES = b"\x89PNG\r\n\x1a\n", b"IDAT", b"IEND", 12
TIFF_BITS_PER_SAMPLE, TIFF_ROWS_PER_STRIP, TIFF_TILE_WIDTH, TIFF_TILE_LENGTH = 258, 278, 322, 323  # the tags' numbers
TIFF_STRIP_OFFSETS, TIFF_TILE_OFFSETS, TIFF_PLANAR = 273, 324, 284
# Segments of a JPEG file before its first scan, and chunks of a PNG file that hold no pixels: Pillow joins them one by
# one, in quadratic time. Most files have some tens; a profile or a panorama's metadata takes a few hundred.
MOST_SEGMENTS = 1000
# Memory for each pixel beyond Pillow's image and its RGB copy: frames of libwebp and libavif, strips of libtiff.
WEBP_PIXEL_BYTES, TIFF_PIXEL_BYTES, AVIF_PIXEL_BYTES = 12, 8, 7
FIXED_MEMORY_BYTES = 16 * 2**20  # does not grow with the image
# Reduced decoding: smallest side S, sides S that a reduced image keeps, and sides S that an image must have both ways.
REDUCED_MIN_SIZE = 224
REDUCED_TARGET = 2
REDUCED_MIN_SIDES = 4

_LACK_OF_MEMORY = re.compile("[Oo]ut of memory|Allocating .* failed")
# In coded data, 0 or a restart marker (D0 to D7) follows 0xFF; 0xFF may be repeated before a marker.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_JPEG_BARE_MARKERS = (b"\xff\x01", JPEG_START, JPEG_END)  # without a length


class Limits(NamedTuple):
    """The most that an image file may hold and cost.

    Attributes:
        file_bytes: Length of the file.
        pixels: Width times height, of the image and of a TIFF's tile.
        scans: Passes over the whole image in a JPEG; each takes time, however short it is.
        seconds: Processor time to decode the file. ``decoding.py`` enforces it; this module can't stop a decoder.
    """

    file_bytes: int = 64 * 2**20
    pixels: int = 52_000_000
    scans: int = 32
    seconds: float = 4.0

    @property
    def memory_bytes(self) -> int:
        """Memory to decode an image: 7 bytes for each pixel, and three times ``FIXED_MEMORY_BYTES``."""
        return 7 * self.pixels + 3 * FIXED_MEMORY_BYTES


DEFAULT_LIMITS = Limits()


class UndecodableImageError(ValueError):
    """An image can't be decoded.

    Args:
        code: One of ``UNDECODABLE`` of ``reasons.py``.
        text: Text for the image's sender, without paths and memory addresses.

    Attributes:
        reason: Code and text.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.reason = Reason(code, text)


class ExpensiveImageError(Exception):
    """An image is within its limits, but over its budget.

    Args:
        memory_bytes: Memory to decode the image.
    """

    def __init__(self, memory_bytes: int) -> None:
        super().__init__(memory_bytes)
        self.memory_bytes = memory_bytes


class Decoded(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: RGB pixels, uint8 [S, S, 3], 0 to 255; read-only.
        note: What the image's sender should know, as a sentence; "" for nothing.
    """

    pixels: npt.NDArray[np.uint8]
    note: str


def decode_pixels(
    data: bytes,
    size: int,
    *,
    reduced: bool = False,
    geometry: Geometry = DEFAULT_GEOMETRY,
    limits: Limits = DEFAULT_LIMITS,
) -> npt.NDArray[np.uint8]:
    """Return the pixels of ``decode``, without a budget of memory."""
    return decode(data, size, reduced=reduced, geometry=geometry, limits=limits).pixels


def decode(
    data: bytes,
    size: int,
    *,
    reduced: bool = False,
    geometry: Geometry = DEFAULT_GEOMETRY,
    limits: Limits = DEFAULT_LIMITS,
    budget_bytes: int | None = None,
) -> Decoded:
    """Decode an image file and bring it to a square.

    The first frame or page; RGB by Pillow's ``convert``, alpha dropped; 16-bit grey scaled to 8 bits (value // 257);
    then as ``geometry`` says. By default, both sides are resized with Pillow's bilinear filter, the aspect ratio is not
    kept, and EXIF orientation is not applied.

    Args:
        data: The file's bytes, or their base64 text (line breaks allowed).
        size: Side S of the result in pixels, at least 1.
        reduced: Decode large JPEGs at a half, quarter or eighth of their sides, but not below ``REDUCED_TARGET`` times
            the sides that they are resized to: faster, and close on photographs, but not on patterns as fine as a
            pixel. Large means that both sides have at least ``REDUCED_MIN_SIDES`` times the pixels that they are
            resized to; S must be at least ``REDUCED_MIN_SIZE``.
        geometry: How the image becomes a square, and in which colors.
        limits: Limits beyond which a file is refused without decoding it; ``seconds`` is not used.
        budget_bytes: Memory that decoding may take now; None: as much as ``limits`` admit.

    Returns:
        The pixels, and a note for an image that is not stored upright and was not turned.

    Source:
        Scaled decoding by fewer DCT coefficients: libjpeg's ``scale_num``/``scale_denom``, Pillow's ``Image.draft``.

    Raises:
        UndecodableImageError: Empty, of an unknown format, broken, truncated, or over one of ``limits``.
        ExpensiveImageError: Over ``budget_bytes``.
        MemoryError: This process can't have the memory.
    """
    with _open(data, limits, budget_bytes) as image:
        try:
            if reduced:
                _reduce(image, size, geometry)
            _require_memory(_memory_bytes(image, size, geometry), limits, budget_bytes)
            colors = _to_colors(image, is_grey=geometry.is_grey)
            orientation = read_orientation(image)
            square = fit(colors, size, geometry, orientation)
        except (MemoryError, ExpensiveImageError, UndecodableImageError):
            raise
        except Exception as error:  # Pillow's decoders raise almost any exception on broken files
            _require_no_lack_of_memory(error)
            raise UndecodableImageError(BROKEN, f"broken or truncated {image.format} file") from error
    if square.mode == "L":
        square = Image.merge("RGB", (square, square, square))
    return Decoded(np.asarray(square), "" if geometry.orientation == UPRIGHT else note(orientation))


def read_note(data: bytes, geometry: Geometry, limits: Limits = DEFAULT_LIMITS) -> str:
    """Return the note of ``decode`` for a file that is known to decode, without decoding its pixels."""
    if geometry.orientation == UPRIGHT:
        return ""
    with _open(data, limits, None) as image:
        return note(read_orientation(image))


def _open(data: bytes, limits: Limits, budget_bytes: int | None) -> Image.Image:
    if len(data) > BASE64_LENGTH * limits.file_bytes:
        raise _too_long(data, limits)
    image, sent = _identify(data, limits, budget_bytes), data
    if image is None:
        decoded = base64_text.decode(data)
        if decoded is not None:
            data, image = decoded, _identify(decoded, limits, budget_bytes)
    if len(data) > limits.file_bytes:
        raise _too_long(data, limits)
    if not data:
        raise UndecodableImageError(EMPTY, "empty: 0 bytes")
    if image is None:
        raise _unsupported(other_formats.find(data) or other_formats.find(sent))
    _require_few_pixels(*image.size, limits)
    if isinstance(image, TiffImageFile):
        _require_sound_strips(image, limits)
    if isinstance(image, JpegImageFile) and _has_more_scans(data, limits.scans):
        raise UndecodableImageError(TOO_SLOW, f"too slow to decode: more than {limits.scans} scans in a JPEG file")
    return image


def supported_formats() -> list[str]:
    """Return the names of the formats that this installation decodes."""
    return sorted(["BMP", "GIF", "JPEG", "PNG", "TIFF", "WebP", *heif.PLUGINS])


def _unsupported(found: other_formats.Found | None) -> UndecodableImageError:
    text = f"no image in a supported format ({', '.join(supported_formats())})"
    return UndecodableImageError(UNSUPPORTED, f"{text}, but {found.name}; {found.remedy}" if found else text)


def _too_long(data: bytes, limits: Limits) -> UndecodableImageError:
    return UndecodableImageError(
        TOO_LARGE, f"too large to decode: {len(data):,} bytes, at most {limits.file_bytes:,} are decoded"
    )


def _identify(data: bytes, limits: Limits, budget_bytes: int | None) -> Image.Image | None:
    if _has_more_segments(data) or _has_more_chunks(data):
        raise UndecodableImageError(TOO_SLOW, f"too slow to decode: more than {MOST_SEGMENTS:,} pieces of metadata")
    claims = _claims(data, limits, budget_bytes)
    canvas = _webp_canvas(data)
    if canvas is not None:  # libwebp allocates the canvas as soon as Pillow opens the file
        _require_few_pixels(*canvas, limits)
        _require_memory((8 + WEBP_PIXEL_BYTES) * canvas[0] * canvas[1] + FIXED_MEMORY_BYTES, limits, budget_bytes)
    formats = FORMATS if claims is None else (heif.PLUGINS[claims.format],)
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except Image.DecompressionBombError as error:
        raise UndecodableImageError(
            TOO_LARGE, f"too large to decode: far too many pixels, at most {limits.pixels:,} are decoded"
        ) from error
    except UnidentifiedImageError as error:
        if claims is not None:
            raise UndecodableImageError(BROKEN, f"broken or truncated {heif.PLUGINS[claims.format]} file") from error
        return None
    except MemoryError:
        raise
    except Exception as error:  # the format is known, but the header breaks its decoder
        _require_no_lack_of_memory(error)
        if (found := other_formats.find_signature(data)) is not None:  # camera RAW begins as TIFF does
            raise _unsupported(found) from error
        raise UndecodableImageError(BROKEN, "broken image header") from error


def _claims(data: bytes, limits: Limits, budget_bytes: int | None) -> heif.Claims | None:
    """Read what an AVIF or HEIC file claims, and refuse it if that is too much, before its decoder allocates it."""
    try:
        claims = heif.read_claims(data)
    except heif.CrowdedError as error:
        raise UndecodableImageError(TOO_SLOW, f"too slow to decode: {error}") from error
    except heif.BrokenBoxesError as error:
        raise UndecodableImageError(BROKEN, "broken or truncated AVIF or HEIC file") from error
    if claims is None:
        return None
    if claims.format not in heif.PLUGINS:
        raise _unsupported(other_formats.Found(claims.format, heif.REMEDIES.get(claims.format, other_formats.CONVERT)))
    _require_few_pixels(claims.width, claims.height, limits)
    _require_memory(claims.memory_bytes + FIXED_MEMORY_BYTES, limits, budget_bytes)
    return claims


def _require_few_pixels(width: int, height: int, limits: Limits) -> None:
    if width * height > limits.pixels:
        raise UndecodableImageError(
            TOO_LARGE, f"too large to decode: {width} x {height} pixels, at most {limits.pixels:,} are decoded"
        )


def _require_memory(memory_bytes: int, limits: Limits, budget_bytes: int | None) -> None:
    if memory_bytes > limits.memory_bytes:
        raise UndecodableImageError(
            TOO_LARGE,
            f"too large to decode: it takes {memory_bytes / 1e6:,.0f} MB of memory, at most "
            f"{limits.memory_bytes / 1e6:,.0f} MB are allowed",
        )
    if budget_bytes is not None and memory_bytes > budget_bytes:
        raise ExpensiveImageError(memory_bytes)


def _require_no_lack_of_memory(error: Exception) -> None:
    """Raise ``MemoryError`` for the exceptions in which libavif and libheif say that they lack memory."""
    if isinstance(error, RuntimeError) and _LACK_OF_MEMORY.search(str(error)):
        raise MemoryError from error


def _memory_bytes(image: Image.Image, size: int, geometry: Geometry) -> int:
    """Estimate the memory to decode an image: its pixels as Pillow keeps them, as RGB and grey, and to resize them."""
    pixel_bytes: float = {"1": 1, "L": 1, "P": 1}.get(image.mode, 4) + 4 * (image.mode != "RGB")
    pixel_bytes += geometry.is_grey
    if isinstance(image, JpegImageFile) and image.info.get("progressive"):
        pixel_bytes += 2 * _jpeg_samples(image)  # coefficients of two bytes, all kept until the last scan
    elif isinstance(image, TiffImageFile):
        pixel_bytes += TIFF_PIXEL_BYTES + 2 * len(image.getbands()) * ("jpeg" in str(image.info.get("compression")))
    elif image.format == "WEBP":
        pixel_bytes += WEBP_PIXEL_BYTES
    elif image.format == "AVIF":
        pixel_bytes += AVIF_PIXEL_BYTES
    # The orientation may not be known yet, so the larger need of the two directions counts.
    resizing = max(working_bytes(image.size, size, geometry, orientation) for orientation in (AS_STORED, TURNED))
    return int(pixel_bytes * image.width * image.height) + max(FIXED_MEMORY_BYTES, resizing)


def _jpeg_samples(image: JpegImageFile) -> float:
    """Return the number of values that a JPEG has for each pixel: 3 in full color, 1.5 with colors halved both ways."""
    factors = [horizontal * vertical for _, horizontal, vertical, _ in image.layer]
    return sum(factors) / max(factors)


def _require_sound_strips(image: TiffImageFile, limits: Limits) -> None:
    """Refuse a TIFF with tiles larger than an image may be, or with many more strips or tiles than its image needs."""
    try:
        tags = image.tag_v2
        width, height = image.size
        tile_width, tile_length = (int(tags.get(tag, 0)) for tag in (TIFF_TILE_WIDTH, TIFF_TILE_LENGTH))
        rows = int(tags.get(TIFF_ROWS_PER_STRIP, height))
        planes = len(image.getbands()) if int(tags.get(TIFF_PLANAR, 1)) > 1 else 1
        strips, tiles = (len(tags.get(tag, ())) for tag in (TIFF_STRIP_OFFSETS, TIFF_TILE_OFFSETS))
    except MemoryError:
        raise
    except Exception as error:  # a tag has the wrong type
        raise UndecodableImageError(BROKEN, "broken image header") from error
    _require_few_pixels(tile_width, tile_length, limits)
    needed = max(
        -(-height // max(rows, 1)) * planes,
        -(-width // max(tile_width, 1)) * -(-height // max(tile_length, 1)) * planes if tile_width else 0,
    )
    if max(strips, tiles) > needed + MOST_SEGMENTS:
        raise UndecodableImageError(TOO_SLOW, "too slow to decode: more strips or tiles than the image has")


def _webp_canvas(data: bytes) -> tuple[int, int] | None:
    """Read the width and height of a WebP file from its first chunk, which has one of three forms."""
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


def _has_more_segments(data: bytes) -> bool:
    """Tell whether a JPEG file has more than ``MOST_SEGMENTS`` segments before its first scan."""
    if not data.startswith(JPEG_START):
        return False
    segments = itertools.takewhile(JPEG_SCAN.__ne__, _jpeg_markers(data))
    return _has_at_least(segments, MOST_SEGMENTS + 1)


def _has_more_chunks(data: bytes) -> bool:
    """Tell whether a PNG file has more than ``MOST_SEGMENTS`` chunks that hold no pixels."""
    if not data.startswith(PNG_START):
        return False
    position, others = len(PNG_START), 0
    while position < len(data):
        kind = data[position + 4 : position + 8]
        if kind == PNG_END:
            return False
        others += kind != PNG_PIXELS
        if others > MOST_SEGMENTS:
            return True
        position += int.from_bytes(data[position : position + 4], "big") + PNG_CHUNK_FRAME_BYTES
    return False


def _has_more_scans(data: bytes, most: int) -> bool:
    """Tell whether a JPEG file has more than ``most`` scans."""
    if data.count(JPEG_SCAN) <= most:  # fast; some of these bytes may lie in metadata
        return False
    return _has_at_least((marker for marker in _jpeg_markers(data) if marker == JPEG_SCAN), most + 1)


def _jpeg_markers(data: bytes) -> Iterator[bytes]:
    """Yield the markers of a JPEG file (ITU-T T.81, section B.1.1), skipping segments and coded data."""
    position = len(JPEG_START)
    while (marker := _JPEG_MARKER.search(data, position)) is not None:
        yield marker[0]
        position = marker.end()
        if marker[0] not in _JPEG_BARE_MARKERS:
            position += int.from_bytes(data[position : position + 2], "big")


def _has_at_least(markers: Iterator[bytes], count: int) -> bool:
    return sum(1 for _ in itertools.islice(markers, count)) == count


def _reduce(image: Image.Image, size: int, geometry: Geometry) -> None:
    if size < REDUCED_MIN_SIZE or not isinstance(image, JpegImageFile):
        return
    width, height = stored_sides_to_keep(image, size, geometry, read_orientation(image))
    if image.width >= REDUCED_MIN_SIDES * width and image.height >= REDUCED_MIN_SIDES * height:
        image.draft(None, (REDUCED_TARGET * width, REDUCED_TARGET * height))


def _to_colors(image: Image.Image, *, is_grey: bool) -> Image.Image:
    """Return an image in RGB or, by Pillow's ``convert("L")``, in grey."""
    image.load()
    bits = _grey_bits(image)
    if bits is not None:
        brightest = 2**bits - 1
        values = np.asarray(image)
        eight_bits = np.empty(values.shape, np.uint8)
        for row in range(0, len(values), GREY_ROWS):
            rows = slice(row, row + GREY_ROWS)
            eight_bits[rows] = np.clip(values[rows], 0, brightest).astype(np.int64) * 255 // brightest
        image = Image.fromarray(eight_bits)
    if is_grey and image.mode == "L":
        return image
    colors = image if image.mode == "RGB" else image.convert("RGB")  # `convert` copies even RGB
    return colors.convert("L") if is_grey else colors


def _grey_bits(image: Image.Image) -> int | None:
    """Return the bits of a grey image with 9 to 16 bits, which ``convert`` would clip; None for other images."""
    # Pillow reads signed 16-bit TIFF, and before 11.3 also 16-bit PNG, into mode I of 32 bits.
    if not image.mode.startswith("I"):
        return None
    bits = int(image.tag_v2.get(TIFF_BITS_PER_SAMPLE, (1,))[0]) if isinstance(image, TiffImageFile) else 16
    return bits if EIGHT_BITS < bits <= SIXTEEN_BITS else None
