"""Thumbnails of the images that a server may have seen otherwise, or not at all."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inference_evaluation.report import thumbnails
from inference_evaluation.report.thumbnails import find_base_image, make_thumbnail


def _decode(uri: str | None) -> Image.Image:
    assert uri is not None
    return Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,"))))


def test_large_image_is_shrunk_and_keeps_neither_metadata_nor_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to show
    exif[0x010E] = "a name"
    Image.new("RGB", (600, 300), "red").save(tmp_path / "a.jpg", exif=exif)
    thumbnail = _decode(make_thumbnail(tmp_path / "a.jpg"))
    assert thumbnail.size == (144, 72)
    assert not thumbnail.getexif()


def test_grey_image_of_16_bits_is_as_bright_as_it_was(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 32768, np.uint16)).save(tmp_path / "a.png")
    pixel = np.asarray(_decode(make_thumbnail(tmp_path / "a.png")))[4, 4]
    assert np.abs(pixel.astype(int) - 127).max() <= 3


def test_image_that_does_not_decode_or_is_too_large_has_no_thumbnail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_text("text")
    assert make_thumbnail(tmp_path / "a.jpg") is None
    Image.new("RGB", (20, 20)).save(tmp_path / "b.png")
    monkeypatch.setattr(thumbnails, "MAX_PIXELS", 399)
    assert make_thumbnail(tmp_path / "b.png") is None


@pytest.mark.parametrize("name", ["a/../b", "/etc/passwd", "a", "a/b/c", "../a", "a/\0"])
def test_name_that_leads_elsewhere_finds_no_base_image(name: str, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "b").write_text("")
    assert find_base_image(tmp_path, name) is None
    assert find_base_image(tmp_path, "a/b") == tmp_path / "a" / "b"
