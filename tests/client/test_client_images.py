"""The kinds of images that a call takes, and the bytes that it sends."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_in import StandIn, config, unused_port

from inference_client import Classify
from inference_client.images import collect


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def sent_for(image):
    return [one.read() for one in collect(image)]


def test_file_is_sent_as_it_is_on_disk(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(b"\xff\xd8 any bytes")
    assert sent_for(file) == sent_for(str(file)) == sent_for([str(file)]) == [b"\xff\xd8 any bytes"]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_are_sent_as_they_are(kind):
    assert sent_for(kind(b"file")) == [b"file"]


def test_files_are_read_only_when_they_are_sent(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(b"before")
    images = collect([file])
    file.write_bytes(b"after!")
    assert images[0].read() == b"after!"


def test_array_is_sent_as_png_with_the_same_pixels(pixels):
    (png,) = sent_for(pixels)
    decoded = Image.open(io.BytesIO(png))
    assert decoded.format == "PNG"
    assert np.array_equal(np.asarray(decoded), pixels)


def test_array_that_is_not_contiguous_is_sent_with_the_same_pixels(pixels):
    (png,) = sent_for(pixels[:, ::-1])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), pixels[:, ::-1])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_mode_that_png_has_is_kept(mode, pixels):
    image = Image.fromarray(pixels).convert(mode)
    decoded = Image.open(io.BytesIO(sent_for(image)[0]))
    assert decoded.mode == mode
    assert decoded.tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "F"])
def test_mode_that_png_lacks_is_sent_as_rgb(mode, pixels):
    image = Image.fromarray(pixels).convert(mode)
    decoded = Image.open(io.BytesIO(sent_for(image)[0]))
    assert decoded.mode == "RGB"
    assert decoded.tobytes() == image.convert("RGB").tobytes()


@pytest.mark.parametrize("mode", ["I", "I;16"])
def test_grey_of_16_bits_keeps_them(mode):
    values = np.array([[0, 257], [40000, 65535]])
    image = Image.fromarray(values.astype({"I": np.int32, "I;16": np.uint16}[mode]))
    assert image.mode == mode
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(sent_for(image)[0]))), values)


@pytest.mark.parametrize(
    ("array", "error", "advice"),
    [
        (np.zeros((4, 4, 3)), TypeError, r"astype\('uint8'\)"),
        (np.zeros((4, 4), np.uint8), ValueError, r"np\.stack"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r"array\[\.\.\., :3\]"),
        (np.zeros((3, 4, 4), np.uint8), ValueError, r"transpose\(1, 2, 0\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError, r"list\(array\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "nothing to classify"),
    ],
    ids=["float", "grey", "rgba", "channels_first", "batch", "no_pixels"],
)
def test_array_that_is_no_image_is_refused_with_a_remedy(array, error, advice):
    with pytest.raises(error, match=advice):
        collect([array])


@pytest.mark.parametrize("item", [None, 7, {"a.jpg": 1}, {"a.jpg"}, [None], [["a.jpg"]], [3.5]])
def test_other_objects_than_images_are_refused_with_the_corrected_call(item):
    with pytest.raises(TypeError, match=r"target_server\(\['a.jpg', 'b.jpg'\]\)"):
        collect(item)


def test_any_iterable_is_a_list_of_images():
    assert sent_for(iter([b"a", b"b"])) == sent_for((b"a", b"b")) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("name", "error"),
    [("missing.jpg", FileNotFoundError), (".", IsADirectoryError), ("pipe", ValueError)],
)
def test_unreadable_path_raises_before_anything_is_sent(name, error, tmp_path):
    good = tmp_path / "a.jpg"
    good.write_bytes(b"a")
    os.mkfifo(tmp_path / "pipe")
    with StandIn() as server, Classify(server.url) as target_server:
        with pytest.raises(error):
            target_server([good, tmp_path / name])
        assert server.requests == []


def test_file_without_permission_raises_before_anything_is_sent(tmp_path, monkeypatch):
    secret = tmp_path / "a.jpg"
    secret.write_bytes(b"a")
    secret.chmod(0)
    if os.access(secret, os.R_OK):  # root can read every file
        monkeypatch.setattr("os.open", refuse_permission)
    with Classify(f"127.0.0.1:{unused_port()}") as target_server, pytest.raises(PermissionError):
        target_server(secret)


def refuse_permission(path, *_):
    raise PermissionError(13, "Permission denied", str(path))


def test_file_that_vanishes_meanwhile_costs_only_its_own_result(tmp_path):
    files = [tmp_path / name for name in ("a", "b", "c")]
    for file in files:
        file.write_text(file.name)
    with StandIn(configuration=vanishing(files[1])) as server, Classify(server.url) as target_server:
        results, status_code = target_server(files)
    assert status_code == 207
    assert [entry["Label"] for entry in results] == ["a", None, "c"]
    assert "could no longer be read" in results[1]["Error"]


def vanishing(file: Path):
    def configuration(request):
        file.unlink()
        return config()

    return configuration


def test_pil_image_of_a_truncated_file_is_undecodable(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    with StandIn() as server, Classify(server.url) as target_server, Image.open(file) as image:
        results, status_code = target_server([image, b"a"])
        assert (results[1]["Label"], status_code) == ("a", 207)
        assert "Pillow could not read the image" in results[0]["Error"]
        assert target_server(image)[1] == 400
    assert len(server.inferences) == 1
