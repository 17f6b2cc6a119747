"""Images are squashed, cropped, padded and turned as plain torchvision and Pillow do it, within little memory."""

from __future__ import annotations

import io
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from inference_export.base_set.decoding import (
    DEFAULT_LIMITS,
    Geometry,
    Limits,
    UndecodableImageError,
    decode_pixels,
    hash_preprocessing,
    open_decoder,
    read_note,
)
from inference_export.base_set.image_files import open_image_files
from inference_export.network.preprocessing import make_preprocessing
from inference_export.regular_files import FileReader
from inference_export.template import load_served_module, template_directory
from tests import preprocessing_parity
from tests.corpus import encode, photograph
from tests.resources import PHOTOGRAPHS

SIZE = 48
TAG = 0x0112
UPRIGHT = Geometry(orientation="upright")
_orientation: Any = load_served_module("preprocess", "orientation")


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[TAG] = orientation
    return exif


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return preprocessing_parity.write_photographs(tmp_path_factory.mktemp("photographs"), 16)


@pytest.mark.parametrize(
    ("orientation", "resize", "interpolation"),
    [*preprocessing_parity.COMBINATIONS, ("upright", "crop", "nearest"), ("as_stored", "pad", "nearest")],
)
def test_pixels_are_torchvisions_within_a_level(
    photographs: list[Path], orientation: str, resize: str, interpolation: str
) -> None:
    values = preprocessing_parity.describe(orientation, resize, interpolation)
    preprocessing = make_preprocessing(values, None, "")
    for file in photographs:
        expected = preprocessing_parity.torchvision_pixels(file, values).astype(int)
        differences = np.abs(preprocessing_parity.server_pixels(file, preprocessing) - expected)
        assert differences.max() <= (0 if interpolation == "nearest" or resize != "crop" else 1), file.name


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("sides", [(300, 400), (300, 500), (300, 900), (360, 640), (400, 300), (120, 160), (90, 400)])
@pytest.mark.parametrize(
    ("resize", "interpolation"), [("crop", "bilinear"), ("crop", "bicubic"), ("squash", "lanczos")]
)
def test_pillow_rounds_in_the_order_of_the_whole_upright_image(
    resize: str, interpolation: str, sides: tuple[int, int], orientation: int
) -> None:
    """In the other order, a quarter of the values of noise differ, by up to 20 levels.

    Pillow 13 chooses the order by the sides, so a part, or an image that is turned later, could get another one.
    """
    noise = np.random.default_rng(0).integers(0, 256, (sides[1], sides[0], 3), dtype=np.uint8)
    upright = Image.fromarray(noise)
    long = int(256 * max(sides) / min(sides))
    target = (256, 256) if resize == "squash" else (256, long) if sides[0] < sides[1] else (long, 256)
    whole = upright.resize(target, Image.Resampling[interpolation.upper()])
    left, top = (round((side - 224) / 2) for side in whole.size)
    expected = np.asarray(whole.crop((left, top, left + 224, top + 224))).astype(int)
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose.ROTATE_90)
    geometry = Geometry(resize=resize, resize_size=256, interpolation=interpolation, orientation="upright")
    pixels = decode_pixels(encode(stored, "PNG", exif=_exif(orientation)), 224, geometry=geometry)
    differences = np.abs(pixels - expected)
    assert differences.max() <= 1
    assert (differences > 0).mean() < 0.01


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_upright_is_what_pillow_makes_of_any_orientation(kind: str, orientation: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(photograph(), kind, exif=_exif(orientation), **options)
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    expected = np.asarray(turned.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(decode_pixels(data, SIZE, geometry=UPRIGHT), expected)
    assert bool(read_note(data, Geometry())) == (orientation > 1 and kind != "TIFF"), "Pillow itself turns TIFF"
    assert read_note(data, UPRIGHT) == ""


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(1, "B"), (3, "H"), (4, "L")])
def test_orientation_is_read_in_each_byte_order_and_type(order: str, kind: int, code: str) -> None:
    value = struct.pack(f"{order}{code}", 8).ljust(4, b"\0")
    directory = struct.pack(f"{order}HHHL", 1, TAG, kind, 1) + value + bytes(4)
    data = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}L", 8) + directory
    image = Image.open(io.BytesIO(encode(photograph(), "JPEG", exif=b"Exif\0\0" + data)))
    assert _orientation.read_orientation(image) == 8


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"II*\0", id="no-directory"),
        pytest.param(b"II*\0\xff\xff\xff\xff", id="far-directory"),
        pytest.param(b"II*\0\x08\0\0\0\xff\xff", id="no-entries"),
        pytest.param(b"XX*\0\x08\0\0\0\0\0", id="no-order"),
        pytest.param(_exif(0).tobytes(), id="zero"),
        pytest.param(_exif(9).tobytes(), id="nine"),
    ],
)
def test_exif_without_a_valid_orientation_is_stored_upright(exif: bytes) -> None:
    image = photograph()
    image.info["exif"] = exif
    assert _orientation.read_orientation(image) == 1


def test_orientation_of_xmp_data_counts_as_pillow_counts_it() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encode(photograph(), "JPEG", xmp=xmp)
    assert Image.open(io.BytesIO(data)).getexif()[TAG] == 6
    assert "EXIF orientation 6" in read_note(data, Geometry())


def test_hostile_exif_takes_no_memory() -> None:
    entries = struct.pack("<HHLL", 0x9286, 7, 60_000, 8) * 5_000  # each value is 60,000 bytes
    exif = b"Exif\0\0II*\0" + struct.pack("<LH", 8, 5_000) + entries
    image = photograph()
    image.info["exif"] = exif.ljust(65_000, b"\0")
    tracemalloc.start()
    assert _orientation.read_orientation(image) == 1
    assert tracemalloc.get_traced_memory()[1] < 2**20, "Pillow's own reader takes 300 MB"
    tracemalloc.stop()


def test_grey_is_pillows_grey_in_three_equal_channels() -> None:
    data = encode(photograph(), "PNG")
    expected = photograph().convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    pixels = decode_pixels(data, SIZE, geometry=Geometry(is_grey=True))
    for channel in range(3):
        np.testing.assert_array_equal(pixels[..., channel], np.asarray(expected))
    grey = encode(photograph().convert("L"), "PNG")
    np.testing.assert_array_equal(decode_pixels(grey, SIZE, geometry=Geometry(is_grey=True)), pixels)


def test_pad_color_lies_around_the_whole_image() -> None:
    data = encode(Image.new("RGB", (100, 50), (10, 20, 30)), "PNG")
    pixels = decode_pixels(data, SIZE, geometry=Geometry("pad", SIZE, (1, 2, 3)))
    assert (pixels[12:36] == (10, 20, 30)).all()
    assert (pixels[:12] == (1, 2, 3)).all()
    assert (pixels[36:] == (1, 2, 3)).all()


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("sides", [(2_400_000, 3), (3, 2_400_000), (30_000, 1)])
def test_middle_of_a_long_strip_is_cropped_without_resizing_the_strip(sides: tuple[int, int], orientation: int) -> None:
    size, resize_size = 224, 256
    steps = np.random.default_rng(0).integers(0, 256, (sides[1], sides[0], 3), np.uint8)
    data = encode(Image.fromarray(steps), "PNG", exif=_exif(orientation))
    geometry = Geometry("crop", resize_size, orientation="upright")
    pixels = decode_pixels(data, size, geometry=geometry).astype(int)
    # The same from the middle alone, whose center is that of the strip.
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    short, middle = min(sides), 30
    left, top = (0 if side == short else side // 2 - middle // 2 for side in image.size)
    cut = image.crop((left, top, left + min(image.width, middle), top + min(image.height, middle)))
    width, height = (side * resize_size // short for side in cut.size)
    resized = cut.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in resized.size)
    expected = np.asarray(resized.crop((left, top, left + size, top + size))).astype(int)
    assert np.abs(pixels - expected).max() <= 1


@pytest.mark.parametrize(
    ("sides", "geometry"),
    [
        pytest.param((60_000, 2), Geometry("crop", 256, interpolation="nearest"), id="nearest"),
        pytest.param((1, 2_000_000), Geometry(), id="squash-column"),
        pytest.param((2_000_000, 1), UPRIGHT, id="squash-turned"),
    ],
)
def test_image_that_takes_too_much_memory_to_resize_is_refused(sides: tuple[int, int], geometry: Any) -> None:
    data = encode(Image.new("L", sides), "PNG", exif=_exif(6))
    with pytest.raises(UndecodableImageError, match=r"too large to decode: it takes [0-9,]+ MB of memory"):
        decode_pixels(data, 224, geometry=geometry)


def test_large_portrait_of_a_phone_is_turned_within_the_default_limits() -> None:
    image = Image.new("RGB", (8000, 6000), (1, 2, 3))
    image.paste((200, 100, 50), (0, 0, 4000, 6000))
    data = encode(image, "JPEG", exif=_exif(6))
    with open_decoder(224, "exact", DEFAULT_LIMITS, Geometry("crop", 256, orientation="upright")) as decoder:
        results = decoder.decode([data])
    assert results.reasons == [""]
    assert np.abs(results.pixels[0, 0, 0].astype(int) - (200, 100, 50)).max() < 5, "the left half is the upper one now"


@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced_decoding_keeps_twice_the_resized_sides(orientation: int) -> None:
    image = ImageOps.fit(Image.open(PHOTOGRAPHS / "chelsea.png"), (4000, 2600))
    data = encode(image, "JPEG", quality=92, exif=_exif(orientation))
    geometry = Geometry("crop", 292, orientation="upright")
    exact, reduced = (decode_pixels(data, 256, geometry=geometry, reduced=each).astype(int) for each in (False, True))
    difference = np.abs(exact - reduced)
    assert difference.any(), "nothing was reduced"
    assert difference.max() <= 4


def test_other_geometry_is_another_way_to_decode() -> None:
    names = set()
    for geometry in (Geometry(), UPRIGHT, Geometry(resize="crop", resize_size=50), Geometry(interpolation="bicubic")):
        with open_image_files(
            FileReader(), image_size=SIZE, decode="exact", limits=Limits(), geometry=geometry
        ) as images:
            names.add(images.decoding)
        names.add(hash_preprocessing(template_directory() / "preprocess" / "1", geometry._asdict()))
    assert len(names) == 8
