"""Decoding, by the very module that the server loads."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference_export.preprocessing import UndecodableImageError, decode_batch, decode_pixels

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


def test_undecodable_image_in_a_batch_leaves_the_others_decoded() -> None:
    pixels, reasons = decode_batch([PNG, b"", JPEG], SIZE)
    np.testing.assert_array_equal(pixels[0], decode_pixels(PNG, SIZE))
    np.testing.assert_array_equal(pixels[2], decode_pixels(JPEG, SIZE))
    assert not pixels[1].any()
    assert reasons == ["", "empty: 0 bytes", ""]
