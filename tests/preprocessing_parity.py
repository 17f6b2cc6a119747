"""What the server makes of photographs, compared with plain torchvision: ``python -m tests.preprocessing_parity``.

For each way to bring an image to the network, a tiny network is exported with it and served by the real server. The
table shows how far the server's pixels are from torchvision's, and how far its probabilities are from PyTorch's, on the
server's own pixels and on torchvision's.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from click.testing import CliRunner
from PIL import Image, ImageOps

from inference_client import Classify
from inference_export.base_set.decoding import Geometry, decode_pixels
from inference_export.command import main as export_main
from inference_export.network.preprocessing import MEAN, STD, Preprocessing, make_preprocessing
from inference_server.triton.process import running_server
from tests import tiny_network
from tests.resources import PHOTOGRAPHS, write_resources
from tests.training_transforms import transforms

IMAGE_SIZE = 64
RESIZE_SIZE = 73
PAD_COLOR = (124, 116, 104)
PHOTOGRAPH_COUNT = 24
CLASSES = 3
NAMES = (
    "astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "motorcycle_right.png",
    "hubble_deep_field.jpg", "retina.jpg", "ihc.png", "camera.png", "coins.png", "moon.png",
)  # fmt: skip
# Odd sizes, in landscape, portrait and panorama.
SIDES = ((401, 301), (299, 397), (512, 131), (250, 250))
ORIENTATION_TAG, ORIENTATIONS = 0x0112, 8
COMBINATIONS = tuple(
    itertools.product(("as_stored", "upright"), ("squash", "crop", "pad"), ("bilinear", "bicubic", "lanczos"))
)


class Row(NamedTuple):
    """How one way to bring images to the network agrees with torchvision and PyTorch.

    Attributes:
        levels: Largest difference of a pixel, 0 to 255.
        share: Share of the values that differ.
        labels: Number of equal labels.
        equal_pixels: Largest difference of a probability from PyTorch's on the server's pixels.
        end_to_end: Largest difference of a probability from PyTorch's on torchvision's pixels.
        notes: Number of answers with a note.
    """

    levels: int
    share: float
    labels: int
    equal_pixels: float
    end_to_end: float
    notes: int


def write_photographs(folder: Path, count: int = PHOTOGRAPH_COUNT) -> list[Path]:
    """Write photographs as phones do: in odd sizes, as JPEG, with every EXIF orientation."""
    files = []
    for number in range(count):
        image = Image.open(PHOTOGRAPHS / NAMES[number % len(NAMES)]).convert("RGB")
        exif = Image.Exif()
        exif[ORIENTATION_TAG] = 1 + number % ORIENTATIONS
        files.append(folder / f"{number:02}.jpg")
        sides = SIDES[number // len(SIDES) % len(SIDES)]
        ImageOps.fit(image, sides).save(files[-1], exif=exif, quality=92)
    return files


def describe(orientation: str, resize: str, interpolation: str) -> dict[str, Any]:
    """Describe a preprocessing as ``preprocessing.json`` does."""
    values = {
        "image_size": IMAGE_SIZE, "orientation": orientation, "resize": resize, "interpolation": interpolation
    }  # fmt: skip
    extra: dict[str, dict[str, Any]] = {"crop": {"resize_size": RESIZE_SIZE}, "pad": {"pad_color": PAD_COLOR}}
    return values | extra.get(resize, {})


def torchvision_pixels(file: Path, values: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """Bring an image to the network with Pillow and torchvision alone, as ``values`` says."""
    functional, size = transforms.functional, values["image_size"]
    interpolation = transforms.InterpolationMode(values["interpolation"])
    image: Image.Image = Image.open(file)
    if values["orientation"] == "upright":
        image = ImageOps.exif_transpose(image)
    image = image.convert("RGB")
    if values["resize"] == "crop":
        image = functional.center_crop(functional.resize(image, RESIZE_SIZE, interpolation), size)
    elif values["resize"] == "pad":
        width, height = (round(side / (max(image.size) / size)) for side in image.size)
        image = functional.resize(image, [height, width], interpolation)
        left, top = (size - width) // 2, (size - height) // 2
        image = functional.pad(image, [left, top, size - width - left, size - height - top], fill=values["pad_color"])
    else:
        image = functional.resize(image, [size, size], interpolation)
    return np.asarray(image)


def server_pixels(file: Path, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Bring an image to the network with the server's code."""
    return decode_pixels(file.read_bytes(), preprocessing.image_size, geometry=Geometry(**preprocessing.geometry))


def compare(files: Sequence[Path], values: Mapping[str, Any], folder: Path) -> Row:
    """Export a tiny network with a preprocessing, and have the real server classify images."""
    network = tiny_network.spread_network(CLASSES, IMAGE_SIZE, files)
    names = {f"class {index}": index for index in range(CLASSES)}
    write_resources(folder / "trained", {"model_1": network.state_dict()}, names)
    described = folder / "described.json"
    described.write_text(json.dumps(values), encoding="utf-8")
    arguments = (
        "-r", folder / "trained", "--network", tiny_network.NETWORK, "--preprocessing", described,
        "--model_repository", folder / "repository",
    )  # fmt: skip
    result = CliRunner().invoke(export_main, list(map(str, arguments)), catch_exceptions=False)
    if result.exit_code:
        raise AssertionError(result.output)
    with (
        running_server(folder / "repository", log=folder / "log") as server,
        Classify(server.url, details=True) as classify,
    ):
        entries, status_code = classify(files)
    if status_code != 200:
        raise AssertionError(entries)
    served = np.array([list(entry["Scores"].values()) for entry in entries])
    ours = np.stack([server_pixels(file, make_preprocessing(values, None, "")) for file in files])
    theirs = np.stack([torchvision_pixels(file, values) for file in files])
    differences = np.abs(ours.astype(int) - theirs)
    expected = _probabilities(network, theirs)
    return Row(
        levels=int(differences.max()),
        share=float((differences > 0).mean()),
        labels=int((served.argmax(1) == expected.argmax(1)).sum()),
        equal_pixels=float(np.abs(served - _probabilities(network, ours)).max()),
        end_to_end=float(np.abs(served - expected).max()),
        notes=sum("Note" in entry for entry in entries),
    )


def main() -> None:
    """Print the table."""
    print("                               pixels                       probabilities,")
    print("orientation  resize  filter    differ by    share    labels  equal pixels  torchvision's  notes")
    with tempfile.TemporaryDirectory() as temporary:
        files = write_photographs(Path(temporary))
        for number, combination in enumerate(COMBINATIONS):
            folder = Path(temporary) / str(number)
            folder.mkdir()
            row = compare(files, describe(*combination), folder)
            print(
                f"{combination[0]:11}  {combination[1]:6}  {combination[2]:8}  {row.levels:9}  {row.share:7.4%}  "
                f"{row.labels:2} of {len(files)}  {row.equal_pixels:12.1e}  {row.end_to_end:13.1e}  {row.notes:5}",
                flush=True,
            )


def _probabilities(network: torch.nn.Module, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    normalize = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    with torch.inference_mode():
        _, logits = network(torch.stack(list(map(normalize, pixels))))
        probabilities: npt.NDArray[np.float32] = logits.softmax(1).numpy()
    return probabilities


if __name__ == "__main__":
    main()
