"""Writes trained resources with random weights and realistic batch-norm statistics."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch

from inference_export.base_set.decoding import open_decoder
from inference_export.network.preprocessing import MEAN, STD
from inference_export.network.resnet50 import TwoHeadedResNet50

LABELS = {"autistic": 0, "non_autistic": 1}
SEED = 0


def write_resources(folder: Path, images: list[Path], image_size: int) -> Path:
    """Write resources in the documented form, unless they exist.

    In a freshly initialized network of this depth, activations have no realistic range. So the batch-norm statistics
    are computed from the images.

    Args:
        folder: The folder to write to.
        images: Image files, at least two.
        image_size: Side S in pixels.

    Returns:
        The folder.
    """
    if (folder / "labels").is_file():
        return folder
    torch.manual_seed(SEED)
    network = TwoHeadedResNet50(len(LABELS))
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # a plain average
    with open_decoder(image_size, "exact") as decoder:
        pixels = decoder.decode([file.read_bytes() for file in images]).pixels
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    batch = (torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32) / 255 - mean) / std
    with torch.no_grad():
        network.train()(batch)
    (folder / "models").mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), folder / "models" / "model_1")
    (folder / "labels").write_bytes(pickle.dumps(LABELS))
    return folder
