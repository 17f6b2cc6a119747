"""Trained resources and images for the tests."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from PIL import Image

from inference_export.network.resnet50 import TwoHeadedResNet50
from tests import reference

SPREAD = 0.3  # standard deviation of a head's outputs; a larger one would enlarge rounding errors too
PHOTOGRAPHS = Path(skimage.__file__).parent / "data"


def spread_network(classes: int, size: int, files: Sequence[Path], seed: int = 0) -> TwoHeadedResNet50:
    """Make a network of random weights whose embeddings and probabilities differ from image to image.

    A freshly initialized deep network gives nearly the same answer for every image. So its batch-norm statistics, and
    the scale and center of its heads, are set from some images.
    """
    torch.manual_seed(seed)
    network = TwoHeadedResNet50(classes)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain average
    batch = reference.images(files, size)
    with torch.no_grad():
        network.train()(batch)
        network.eval()
        head = network.resnet.fc[0]
        pooled: list[torch.Tensor] = []
        hook = head.register_forward_hook(lambda _module, _inputs, output: pooled.append(output))
        network(batch)
        hook.remove()
        center(head, pooled[0])
        center(network.classifier, network(batch)[1])
    return network


def center(layer: torch.nn.Linear | torch.nn.Conv2d, outputs: torch.Tensor) -> None:
    """Change a layer's weights so that its outputs, [N, D], would have the mean 0 and the spread ``SPREAD``."""
    scale = outputs.std(dim=0).mean() / SPREAD
    layer.bias.sub_(outputs.mean(dim=0)).div_(scale)
    layer.weight.div_(scale)


def write_resources(
    folder: Path,
    states: dict[str, Any],
    labels: dict[Any, Any],
    *,
    epochs: Iterable[Any] = (),
    classification_accuracy: Iterable[Any] = (),
    embedding_accuracy: Iterable[Any] = (),
) -> Path:
    """Write trained resources in the documented form; ``states`` names the files of ``models/``."""
    (folder / "models").mkdir(parents=True)
    (folder / "logs").mkdir()
    for name, state in states.items():
        torch.save(state, folder / "models" / name)
    (folder / "labels").write_bytes(pickle.dumps(labels))
    logs = {
        "epochBased": {
            "validation": {
                "epoch": list(epochs),
                "classificationAccuracy": [np.float64(value) for value in classification_accuracy],
                "embeddingAccuracy": [np.float32(value) for value in embedding_accuracy],
            },
            "train": {"loss": [torch.tensor(0.5), torch.tensor(0.25)]},
        },
    }
    (folder / "logs" / "logs").write_bytes(pickle.dumps(logs))
    return folder


def write_faces(folder: Path, indices: Iterable[int], prefix: str) -> list[Path]:
    """Write some of the 200 real 25 x 25 grey images (100 faces, then 100 others) as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    subset = np.load(PHOTOGRAPHS / "lfw_subset.npy")
    files = []
    for index in indices:
        file = folder / f"{prefix}{index:03}.png"
        Image.fromarray(np.rint(subset[index] * 255).astype(np.uint8)).save(file)
        files.append(file)
    return files


def write_photographs(folder: Path) -> list[Path]:
    """Write crops of real photographs as JPEG files of different sizes."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, box in {
        "astronaut": (0, 0, 512, 512), "astronaut_face": (150, 0, 300, 150), "chelsea": (0, 0, 451, 300),
        "coffee": (0, 0, 600, 400), "rocket": (0, 0, 640, 427), "rocket_left": (0, 0, 320, 427),
        "retina": (300, 300, 900, 1100), "hubble_deep_field": (0, 0, 1000, 872),
    }.items():  # fmt: skip
        source = next(PHOTOGRAPHS.glob(f"{name.split('_')[0]}*[gG]"))
        file = folder / f"{name}.jpg"
        Image.open(source).convert("RGB").crop(box).save(file, quality=90)
        files.append(file)
    return files


def unsorted_folders(parent: Path, names: Sequence[str]) -> list[str]:
    """Make folders whose listing order differs from their sorted order, and return that order.

    File systems list by hash, by age, or by name. If no order of making helps, longer names are tried.
    """
    for suffix in ("", *(f"_{number}" for number in range(50))):
        wanted = sorted(f"{name}{suffix}" for name in names)
        for order in permutations(wanted):
            for name in order:
                (parent / name).mkdir(parents=True)
            if (listed := os.listdir(parent)) != wanted:  # noqa: PTH208  (the order is the point)
                return listed
            for name in order:
                (parent / name).rmdir()
    raise AssertionError(f"{parent} lists every folder sorted")
