"""Trains the network for some seconds on the demonstration's images and writes trained resources."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its customary name)
from torch import Tensor

from examples.demonstration.augmentation import augment_images
from examples.demonstration.data import CLASSES, LabeledFiles
from examples.demonstration.settings import TrainingSettings
from examples.demonstration.train import similarity_loss
from examples.demonstration.trained_resources import TrainingLogs, write_checkpoint, write_labels, write_logs
from examples.own_network.network import SmallNetwork
from inference_export.base_set.decoding import decode_pixels

SETTINGS = TrainingSettings(image_size=48, epochs=16, checkpoint_epochs=(16,), max_learning_rate=5e-3)


def train_network(resources: Path, train: LabeledFiles, *, advance: Callable[[int], object]) -> None:
    """Train the network and write ``labels``, one checkpoint and ``logs/logs``.

    Args:
        resources: An existing folder to write to.
        train: Images to learn from.
        advance: Called with 1 after each epoch.
    """
    torch.set_num_threads(1)  # the network is too small to gain from more
    torch.manual_seed(SETTINGS.seed)
    network = SmallNetwork(len(CLASSES))
    images, targets = read_images(train), torch.tensor(train.class_indices)
    optimizer = torch.optim.AdamW(network.parameters(), SETTINGS.max_learning_rate, weight_decay=SETTINGS.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        SETTINGS.max_learning_rate,
        epochs=SETTINGS.epochs,
        steps_per_epoch=math.ceil(len(images) / SETTINGS.batch_size),
    )
    for _ in range(SETTINGS.epochs):
        for rows in torch.split(torch.randperm(len(images)), SETTINGS.batch_size):
            embeddings, logits = network(augment_images(images[rows], SETTINGS))
            loss = F.cross_entropy(logits, targets[rows], label_smoothing=SETTINGS.label_smoothing)
            loss = loss + SETTINGS.similarity_weight * similarity_loss(embeddings, targets[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
        advance(1)
    write_labels(resources, CLASSES)
    write_checkpoint(resources, SETTINGS.epochs, network.state_dict())
    write_logs(resources, TrainingLogs(settings=asdict(SETTINGS)))


def read_images(part: LabeledFiles) -> Tensor:
    """Read images with the server's own preprocessing, and normalize them for this network.

    Args:
        part: N image files.

    Returns:
        float32 [N, 3, S, S].
    """
    preprocessing = SmallNetwork.preprocessing
    pixels = np.stack([decode_pixels(file.read_bytes(), SETTINGS.image_size) for file in part.files])
    mean, std = (torch.tensor(preprocessing[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32) / 255 - mean) / std
