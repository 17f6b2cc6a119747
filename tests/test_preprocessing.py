"""Decoding with the module that the server loads."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from inference_export.base_set.decoding import (
    DEFAULT_GEOMETRY,
    Limits,
    UndecodableImageError,
    decode_pixels,
    open_decoder,
)
from inference_export.template import template_directory
from tests.corpus import progressive_jpeg, tiled_tiff, webp_canvas
from tests.heavy.boxes import AVIF, HEIF, box, coded, described, frames, grid, still
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


def _in_url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


@pytest.mark.parametrize(
    "encode",
    [
        pytest.param(base64.b64encode, id="one-line"),
        pytest.param(base64.encodebytes, id="wrapped"),
        pytest.param(base64.urlsafe_b64encode, id="url-safe"),
        pytest.param(_in_url, id="url-safe-without-padding"),
        pytest.param(lambda data: b"data:image/jpeg;base64," + base64.b64encode(data), id="data-url"),
        pytest.param(lambda data: b"DATA:IMAGE/jpeg;name=a;BASE64," + _in_url(data), id="data-url-with-parameters"),
        pytest.param(
            lambda data: b"data:;base64," + base64.b64encode(data).replace(b"=", b"%3D").replace(b"/", b"%2f"),
            id="data-url-with-escapes",
        ),
    ],
)
def test_base64_text_of_a_file_decodes_as_the_file(encode: Any) -> None:
    data = _encode(_photograph(), "JPEG") + b"\xff\xfe\xfb"  # both alphabets' own characters, and padding
    assert set(b"+/=") <= set(base64.b64encode(data))
    np.testing.assert_array_equal(decode_pixels(encode(data), SIZE), decode_pixels(data, SIZE))


def test_data_url_over_the_limit_of_bytes_is_refused() -> None:
    data = _encode(_photograph((300, 200)), "BMP")
    text = b"data:image/bmp;base64," + base64.b64encode(data)
    decode_pixels(text, SIZE, limits=Limits(file_bytes=len(data)))
    with pytest.raises(UndecodableImageError, match="bytes, at most"):
        decode_pixels(text, SIZE, limits=Limits(file_bytes=len(data) - 1))


@pytest.mark.parametrize("kind", [AVIF, HEIF])
@pytest.mark.parametrize(
    ("image", "options"),
    [
        pytest.param(_photograph(), {}, id="color"),
        pytest.param(_photograph().convert("L"), {}, id="grey"),
        pytest.param(_photograph((200, 150)), {"tile_size": 64, "tile_cols": 1}, id="tiles"),
    ],
)
def test_avif_and_heic_decode_as_pillow_does(image: Image.Image, options: dict[str, Any], kind: str) -> None:
    data = _encode(image, kind, quality=90, **options)
    pixels = decode_pixels(data, SIZE)
    np.testing.assert_array_equal(pixels, _plain(Image.open(io.BytesIO(data))))
    assert np.abs(pixels.astype(int) - _plain(image)).mean() < 8


@pytest.mark.parametrize("kind", [AVIF, HEIF])
def test_alpha_of_avif_and_heic_is_dropped_not_blended(kind: str) -> None:
    data = _encode(Image.new("RGBA", (64, 64), (200, 100, 50, 0)), kind, quality=100)
    np.testing.assert_allclose(decode_pixels(data, SIZE)[0, 0].astype(int), (200, 100, 50), atol=3)


@pytest.mark.parametrize("mode", ["RGB;16", "L;16"])
def test_heic_of_10_bits_is_scaled_to_8_bits(mode: str) -> None:
    import pillow_heif

    values = np.tile(np.linspace(0, 65535, 64, dtype=np.uint16), (64, 1))
    values = np.stack([values] * 3, -1) if mode == "RGB;16" else values
    file = io.BytesIO()
    pillow_heif.from_bytes(mode, (64, 64), values.tobytes()).save(file, quality=-1, chroma=444)
    assert b"hvcC" in file.getvalue()
    ramp = np.linspace(2, 253, SIZE)
    np.testing.assert_allclose(decode_pixels(file.getvalue(), SIZE)[5, :, 1].astype(float), ramp, atol=4)


def test_heic_is_as_its_container_turns_it_and_avif_as_it_is_stored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = _photograph()
    turned = [_encode(image, kind, exif=exif.tobytes(), quality=95) for kind in (HEIF, AVIF)]
    assert all(b"irot" in data for data in turned)
    upright = _plain(image.transpose(Image.Transpose.ROTATE_270))
    for data, expected in zip(turned, (upright, _plain(image)), strict=True):
        assert np.abs(decode_pixels(data, SIZE).astype(int) - expected).mean() < 5
        turned_once = decode_pixels(data, SIZE, geometry=DEFAULT_GEOMETRY._replace(orientation="upright"))
        assert np.abs(turned_once.astype(int) - upright).mean() < 5


@pytest.mark.parametrize(
    ("package", "kind", "reason"),
    [
        pytest.param("pillow_heif", HEIF, "HEIC; install the extra heif on the server", id="heic"),
        pytest.param("PIL.AvifImagePlugin", AVIF, "AVIF; install Pillow 11.3 or later on the server", id="avif"),
    ],
)
def test_format_whose_decoder_is_not_installed_is_named_with_the_remedy(
    package: str, kind: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "image").write_bytes(_encode(_photograph(), kind))
    program = (
        f"import sys, pathlib; sys.modules[{package!r}] = None; import preprocessing\n"
        "assert preprocessing.decode_pixels(pathlib.Path(sys.argv[2]).read_bytes(), 8).any()\n"
        "try: preprocessing.decode_pixels(pathlib.Path(sys.argv[1]).read_bytes(), 8)\n"
        "except preprocessing.UndecodableImageError as error: print(error.reason.code, error)"
    )
    (tmp_path / "other").write_bytes(PNG)
    folder = template_directory() / "preprocess" / "1"
    said = subprocess.run(
        [sys.executable, "-B", "-c", program, tmp_path / "image", tmp_path / "other"],
        cwd=folder, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert said.startswith("unsupported no image in a supported format (")
    assert reason in said
    assert {HEIF: "HEIC", AVIF: "AVIF"}[kind] not in said.partition(")")[0]


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
        pytest.param(b"not an image", r"no image in a supported format \(AVIF, BMP.*\), but text; send", id="text"),
        pytest.param(bytes(range(256)), r"no image in a supported format \([^()]*\)$", id="nothing-known"),
        pytest.param(b"%PDF-1.7 stuff", "but a PDF document; send its page as an image", id="pdf"),
        pytest.param(base64.b64encode(b"%PDF-1.7 stuff"), "but a PDF document", id="base64-of-pdf"),
        pytest.param(base64.b64encode(b"not an image"), "no image in a supported format", id="base64-of-text"),
        pytest.param(b'<?xml version="1.0"?><svg/>', "but an SVG drawing; convert it", id="svg"),
        pytest.param(b"<!DOCTYPE html><p>login", "but an HTML page", id="html"),
        pytest.param(b'{"IMAGE": "abc"}', "but JSON; send the image itself", id="json"),
        pytest.param(b"PK\x03\x04" + bytes(99), "but a ZIP archive", id="zip"),
        pytest.param(b"PK\x03\x04" + bytes(26) + b"[Content_Types].xml", "but an Office document", id="office"),
        pytest.param(b"https://example.com/a.jpg", "the server fetches nothing", id="address"),
        pytest.param(b"data:image/png,abc", "but a data URL without base64", id="data-url"),
        pytest.param(b"data:image/png;base64,", "empty: 0 bytes", id="empty-data-url"),
        pytest.param(b"version https://git-lfs.github.com/spec/v1", "run: git lfs pull", id="git-lfs"),
        pytest.param(b"\0\0\0\x14ftypqt  " + bytes(99), "but an MP4 or MOV video", id="video"),
        pytest.param(b"\0\0\0\x0cJXL \r\n\x87\n", "but JPEG XL; convert it to JPEG or PNG", id="jpeg-xl"),
        pytest.param(b"II*\0\x10\0\0\0CR\2\0", "but camera RAW", id="raw"),
        pytest.param(bytes(5000), "but zero bytes", id="zeros"),
        pytest.param(_encode(_photograph(), HEIF)[:-50], "broken or truncated HEIF file", id="truncated-heic"),
        pytest.param(_encode(_photograph(), AVIF)[:-50], "broken or truncated AVIF file", id="truncated-avif"),
        pytest.param(_encode(_photograph(), HEIF)[:200], "broken or truncated AVIF or HEIC", id="cut-within-a-box"),
        pytest.param(still(coded(HEIF, 512), (8, 8)), "broken or truncated HEIF file", id="heic-larger-than-it-says"),
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
        pytest.param(_encode(_photograph(), AVIF), Limits(pixels=99), "90 x 60 pixels, at most 99", id="avif"),
        pytest.param(_encode(_photograph(), HEIF), Limits(pixels=99), "pixels, at most 99", id="heic"),
        pytest.param(grid(coded(HEIF, 64), 2, 2, (65535, 65535)), Limits(), "65535 x 65535 pixels", id="heic-grid"),
        pytest.param(grid(coded(AVIF, 64), 2, 2, (70000, 70000)), Limits(), "70000 x 70000 pixels", id="avif-grid"),
        pytest.param(still(coded(AVIF, 64), (7000, 7000)), Limits(), "MB of memory, at most", id="avif-memory"),
        pytest.param(still(coded(HEIF, 64), None, box(b"free") * 5000), Limits(), "4,000 boxes", id="boxes"),
        pytest.param(described(coded(HEIF, 64), 900, 2**20), Limits(), "MB of memory, at most", id="heic-metadata"),
        pytest.param(frames(10_001), Limits(), "more than 10,000 frames", id="frames"),
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
