"""The files by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from inference_export.base_set.decoding import DEFAULT_LIMITS
from tests.heavy import metadata, pixels, repetition

MEBIBYTE = 2**20
_FIXED_BYTES = 32 * MEBIBYTE  # of memory, for any image


class HeavyFile(NamedTuple):
    """A file that is expensive to decode.

    Args:
        name: The format, and the part that is repeated.
        way: The kind of cost: ``metadata``, ``pixels`` or ``repetition``.
        size: Argument of ``make`` that an attacker would choose: bytes, pixels, or times.
        make: Makes the file, of any size up to ``size``.
    """

    name: str
    way: str
    size: int
    make: Callable[[int], bytes]

    def build(self, share: float = 1.0) -> bytes:
        """Make the file at a share of its full size."""
        return self.make(max(1, int(share * self.size)))


def _heavy(size: int, *makers: Callable[[int], bytes]) -> list[HeavyFile]:
    way = makers[0].__module__.rpartition(".")[2]
    return [HeavyFile(maker.__name__.replace("_", "-"), way, size, maker) for maker in makers]


def _most_pixels(memory_bytes: int = 8) -> int:
    """Return the most pixels that are accepted if each takes this many bytes of memory."""
    most_bytes: int = getattr(DEFAULT_LIMITS, "memory_bytes", 2**40)
    return min(DEFAULT_LIMITS.pixels - MEBIBYTE, (most_bytes - _FIXED_BYTES) // memory_bytes)


FILES = [
    *_heavy(2 * MEBIBYTE, metadata.jpeg_exif),
    *_heavy(
        16 * MEBIBYTE,
        metadata.jpeg_comments,
        metadata.jpeg_fill_bytes,
        metadata.jpeg_quantization_tables,
        metadata.jpeg_photoshop_blocks,
        metadata.jpeg_profiles,
        metadata.mpo_entries,
        metadata.png_empty_chunks,
        metadata.png_empty_data,
        metadata.png_chunks_after_pixels,
        metadata.png_texts,
        metadata.apng_animations,
        metadata.gif_comments,
        metadata.gif_extensions,
        metadata.gif_sub_blocks,
        metadata.tiff_bits_per_sample,
        metadata.tiff_entries,
        metadata.bigtiff_entries,
        metadata.webp_chunks,
        metadata.webp_frames,
        metadata.heic_boxes,
        metadata.heic_descriptions,
        metadata.avif_descriptions,
        metadata.base64_words,
    ),
    *_heavy(
        4 * MEBIBYTE,
        metadata.png_inflated_profiles,
        metadata.png_inflated_texts_that_do_not_count,
        metadata.tiff_strip_offsets,
        metadata.tiff_tile_offsets,
        metadata.tiff_resolution,
        metadata.tiff_exif_directories,
    ),
    *_heavy(
        _most_pixels(),
        pixels.bmp_run_lengths,
        pixels.bmp_run_lengths_of_4_bits,
        pixels.bmp_bits,
        pixels.gif,
        pixels.gif_interlaced,
        pixels.jpeg_without_data,
        pixels.jpeg_cmyk,
        pixels.jpeg_arithmetic,
        pixels.png_interlaced,
        pixels.png_colors_of_16_bits,
        pixels.png_palette,
    ),
    *_heavy(_most_pixels(8), pixels.heic_tiles),
    *_heavy(_most_pixels(11), pixels.avif_tiles),
    *_heavy(_most_pixels(10), pixels.jpeg_progressive),
    *_heavy(_most_pixels(16), pixels.tiff_deflated, pixels.tiff_lab, pixels.tiff_bits),
    *_heavy(
        _most_pixels(20),
        pixels.webp_lossless,
        pixels.webp_lossless_of_one_color,
        pixels.webp_lossy,
        pixels.webp_animation,
    ),
    *_heavy(_most_pixels(33), pixels.tiff_progressive_jpeg),
    *_heavy(2000, repetition.tiff_strips_over_each_other, repetition.tiff_tiles_over_each_other),
    *_heavy(
        20_000,
        repetition.tiff_strips_of_reversed_bits,
        repetition.tiff_strips_of_empty_blocks,
        repetition.tiff_strips_of_tables,
    ),
    *_heavy(2000, repetition.heic_overlays),
    *_heavy(800, repetition.heic_tiles_over_the_edge, repetition.jpeg_scans),
]

_HEAVIEST = (
    "jpeg-exif", "jpeg-comments", "jpeg-progressive", "png-empty-chunks", "png-inflated-texts-that-do-not-count",
    "png-interlaced", "gif-comments", "tiff-strip-offsets", "tiff-exif-directories", "tiff-progressive-jpeg",
    "tiff-strips-over-each-other", "tiff-strips-of-empty-blocks", "bmp-run-lengths", "webp-lossless", "webp-animation",
    "heic-tiles", "heic-descriptions", "heic-tiles-over-the-edge", "avif-tiles", "avif-descriptions",
)  # fmt: skip
# The most expensive files of each format and way, for attacks on a server.
HEAVIEST = [heavy for heavy in FILES if heavy.name in _HEAVIEST]
