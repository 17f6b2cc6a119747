"""Decoding with the module that the server loads."""

from __future__ import annotations

import base64
import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference_export.base_set.decoding import Limits, UndecodableImageError, decode_pixels, open_decoder
from tests.corpus import progressive_jpeg, tiled_tiff, webp_canvas
from tests.resources import PHOTOGRAPHS

SIZE = 32


def _encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _photograph(size: tuple[int, int] = (90, 60)) -> Image.Image:
    y, x = np.mgrid[: size[1], : size[0]]
    return Image.fromarray(np.stack([x * 2, y * 3, (x + y) % 200], axis=-1).astype(np.uint8))


def _plain(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(
    ("image", "kind", "options"),
    [
        pytest.param(_photograph(), "PNG", {}, id="png"),
        pytest.param(_photograph().convert("L"), "PNG", {}, id="grey"),
        pytest.param(_photograph().convert("P"), "PNG", {}, id="palette"),
        pytest.param(_photograph().convert("1"), "PNG", {}, id="bilevel"),
        pytest.param(_photograph().convert("RGBA"), "PNG", {}, id="rgba"),
        pytest.param(_photograph(), "BMP", {}, id="bmp"),
        pytest.param(_photograph(), "TIFF", {}, id="tiff"),
        pytest.param(_photograph(), "WEBP", {"lossless": True}, id="webp"),
        pytest.param(_photograph((1, 1)), "PNG", {}, id="1x1"),
        pytest.param(_photograph((4000, 3000)), "PNG", {}, id="4000x3000"),
    ],
)
def test_lossless_image_decodes_to_its_pixels(image: Image.Image, kind: str, options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(decode_pixels(_encode(image, kind, **options), SIZE), _plain(image))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_encode(_photograph(), "JPEG", progressive=True), id="progressive"),
        pytest.param(_encode(_photograph().convert("CMYK"), "JPEG"), id="cmyk"),
    ],
)
def test_jpeg_decodes_as_pillow_does(data: bytes) -> None:
    np.testing.assert_array_equal(decode_pixels(data, SIZE), _plain(Image.open(io.BytesIO(data))))


def test_alpha_is_dropped_not_blended() -> None:
    image = Image.new("RGBA", (8, 8), (200, 100, 50, 0))
    assert (decode_pixels(_encode(image, "PNG"), SIZE) == (200, 100, 50)).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_full_range(kind: str) -> None:
    values = np.linspace(0, 65535, SIZE, dtype=np.uint16)
    image = Image.fromarray(np.tile(values, (SIZE, 1)))
    pixels = decode_pixels(_encode(image, kind), SIZE)
    np.testing.assert_array_equal(pixels[0, :, 0], values // 257)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_exif_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = _encode(_photograph(), "JPEG", exif=exif, quality=95)
    np.testing.assert_array_equal(
        decode_pixels(turned, SIZE), decode_pixels(_encode(_photograph(), "JPEG", quality=95), SIZE)
    )


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP"])
def test_first_frame_is_decoded(kind: str) -> None:
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = _encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert (decode_pixels(data, SIZE) == (255, 0, 0)).all()


@pytest.mark.parametrize("wrap", [False, True], ids=["one-line", "wrapped"])
def test_base64_text_of_a_file_decodes_as_the_file(wrap: bool) -> None:
    data = _encode(_photograph(), "JPEG")
    text = base64.encodebytes(data) if wrap else base64.b64encode(data)
    np.testing.assert_array_equal(decode_pixels(text, SIZE), decode_pixels(data, SIZE))


def _tiff(values: np.ndarray[Any, Any], bits: int, sample_format: int) -> bytes:
    """Write a grey TIFF by hand: Pillow writes neither signed values nor 12 bits."""
    height, width = values.shape
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(np.uint32)
        packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
        data = packed.astype(np.uint8).tobytes()
    else:
        data = values.astype("<i2").tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    tags[339] = sample_format
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


@pytest.mark.parametrize(
    ("bits", "sample_format", "brightest"),
    [pytest.param(16, 2, 32767, id="signed-16"), pytest.param(12, 1, 4095, id="12")],
)
def test_grey_tiff_of_other_depths_is_scaled_and_not_clipped(bits: int, sample_format: int, brightest: int) -> None:
    values = np.linspace(0, brightest, SIZE * SIZE).astype(np.int64).reshape(SIZE, SIZE)
    expected = values * 255 // (65535 if bits == 16 else 4095)
    pixels = decode_pixels(_tiff(values, bits, sample_format), SIZE)
    np.testing.assert_array_equal(pixels[..., 0], expected)


@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"])
def test_reduced_decoding_is_close_on_photographs(name: str) -> None:
    size = 384
    photograph = Image.open(PHOTOGRAPHS / name).convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC)
    data = _encode(photograph, "JPEG", quality=92)
    exact, reduced = (decode_pixels(data, size, reduced=value).astype(int) for value in (False, True))
    difference = np.abs(exact - reduced)
    assert difference.any(), "nothing was reduced"
    assert difference.max() <= 4
    assert difference.mean() <= 0.5


@pytest.mark.parametrize(
    ("side", "size", "kind"),
    [
        pytest.param(4 * 224 - 1, 224, "JPEG", id="too-small-an-image"),
        pytest.param(4 * 223, 223, "JPEG", id="too-small-a-network"),
        pytest.param(4 * 224, 224, "PNG", id="no-jpeg"),
    ],
)
def test_reduced_decoding_leaves_alone_images_that_it_would_harm(side: int, size: int, kind: str) -> None:
    data = _encode(_photograph((side + 10, side)), kind)
    np.testing.assert_array_equal(decode_pixels(data, size), decode_pixels(data, size, reduced=True))


JPEG = _encode(_photograph(), "JPEG")
PNG = _encode(_photograph(), "PNG")


def _huge_png() -> bytes:
    header = b"IHDR" + (50_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    import zlib

    return b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\x0d" + header + zlib.crc32(header).to_bytes(4, "big") + PNG[33:]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "empty: 0 bytes", id="empty"),
        pytest.param(b"not an image", "no image in a supported format", id="text"),
        pytest.param(b"%PDF-1.7 stuff", "no image in a supported format", id="pdf"),
        pytest.param(base64.b64encode(b"not an image"), "no image in a supported format", id="base64-of-text"),
        pytest.param(JPEG[: len(JPEG) // 2], "broken", id="truncated-jpeg"),
        pytest.param(JPEG[:-200], "broken or truncated JPEG file", id="jpeg-without-its-end"),
        pytest.param(PNG[: len(PNG) // 2], "broken or truncated PNG file", id="truncated-png"),
        pytest.param(_encode(_photograph(), "GIF")[:900], "broken or truncated GIF file", id="truncated-gif"),
        pytest.param(_huge_png(), "too large", id="bomb"),
    ],
)
def test_undecodable_image_has_a_reason_without_path_or_address(data: bytes, reason: str) -> None:
    with pytest.raises(UndecodableImageError, match=reason) as caught:
        decode_pixels(data, SIZE)
    assert "0x" not in str(caught.value)
    assert "/" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "limits", "reason"),
    [
        pytest.param(PNG, Limits(file_bytes=len(PNG) - 1), "bytes, at most", id="bytes"),
        pytest.param(base64.b64encode(PNG), Limits(file_bytes=len(PNG) - 1), "bytes, at most", id="base64-bytes"),
        pytest.param(b"x" * 1000, Limits(file_bytes=500), "1,000 bytes, at most 500", id="bytes-of-no-image"),
        pytest.param(PNG, Limits(pixels=99), "pixels, at most 99", id="pixels"),
        pytest.param(webp_canvas(9000, 9000), Limits(), "9000 x 9000 pixels", id="webp-canvas"),
        pytest.param(_encode(_photograph(), "WEBP"), Limits(pixels=99), "pixels, at most 99", id="webp-lossy"),
        pytest.param(
            _encode(_photograph(), "WEBP", lossless=True), Limits(pixels=99), "pixels, at most 99", id="webp-lossless"
        ),
        pytest.param(tiled_tiff(2**14), Limits(), "16384 x 16384 pixels", id="tiff-tile"),
        pytest.param(progressive_jpeg(800, (64, 64)), Limits(), "more than 32 scans", id="scans"),
        pytest.param(_encode(_photograph(), "JPEG", progressive=True), Limits(scans=9), "more than 9 scans", id="ten"),
    ],
)
def test_image_over_a_limit_is_refused_without_decoding_it(data: bytes, limits: Any, reason: str) -> None:
    with pytest.raises(UndecodableImageError, match=reason):
        decode_pixels(data, SIZE, limits=limits)


def test_image_at_the_limits_is_decoded() -> None:
    data = _encode(_photograph(), "JPEG", progressive=True)
    width, height = _photograph().size
    decode_pixels(data, SIZE, limits=Limits(file_bytes=len(data), pixels=width * height, scans=10))


def test_jpeg_may_have_1000_segments_before_its_scan() -> None:
    data = _encode(_photograph(), "JPEG")
    start, scan = data[:2], data.index(b"\xff\xda")
    own = sum(data[2:scan].count(b"\xff" + bytes([marker])) for marker in (0xE0, 0xDB, 0xC0, 0xC4))
    comments = b"\xff\xfe\0\2" * (1000 - own)
    decode_pixels(start + comments + data[2:], SIZE)
    with pytest.raises(UndecodableImageError, match="more than 1,000 pieces of metadata"):
        decode_pixels(start + b"\xff\xfe\0\2" + comments + data[2:], SIZE)


def test_scans_named_in_metadata_do_not_count() -> None:
    data = _encode(_photograph(), "JPEG", exif=b"Exif\0\0" + b"\xff\xda" * 100)
    decode_pixels(data, SIZE)


def test_large_grey_image_takes_little_more_memory_than_itself() -> None:
    import tracemalloc

    data = _encode(Image.new("I;16", (4000, 4000)), "PNG")
    tracemalloc.start()
    decode_pixels(data, SIZE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 80e6  # 16 million values of 8 bytes would be 128 MB, twice


def test_undecodable_image_in_a_batch_leaves_the_others_decoded() -> None:
    with open_decoder(SIZE, "exact") as decoder:
        results = decoder.decode([PNG, b"", JPEG])
        pixels, reasons = results.pixels, results.reasons
    np.testing.assert_array_equal(pixels[0], decode_pixels(PNG, SIZE))
    np.testing.assert_array_equal(pixels[2], decode_pixels(JPEG, SIZE))
    assert not pixels[1].any()
    assert reasons == ["", "empty: 0 bytes", ""]


def test_png_with_something_behind_its_end_is_decoded() -> None:
    np.testing.assert_array_equal(decode_pixels(PNG + bytes(100_000), SIZE), decode_pixels(PNG, SIZE))
