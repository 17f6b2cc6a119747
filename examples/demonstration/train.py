"""Trains the real architecture from scratch, for a short time, on the train part. Never reads the query part."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (its customary name)
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from examples.demonstration.augmentation import augment_images
from examples.demonstration.data import CLASSES, LabeledFiles
from examples.demonstration.settings import TrainingSettings
from examples.demonstration.trained_resources import TrainingLogs, write_checkpoint, write_labels, write_logs
from inference_export.base_set.decoding import decode_pixels
from inference_export.network.preprocessing import MEAN, STD
from inference_export.network.resnet50 import Bottleneck, TwoHeadedResNet50

MAX_THREADS = 8  # for images this small, more threads would wait for each other


def train_network(
    resources: Path,
    train: LabeledFiles,
    validation: LabeledFiles,
    settings: TrainingSettings,
    *,
    advance: Callable[[int], object],
) -> TrainingLogs:
    """Train the network and write trained resources.

    Args:
        resources: An existing folder to write to.
        train: Images to learn from.
        validation: Images for the accuracies in the logs. By these accuracies, the export selects a checkpoint.
        settings: The settings of the training.
        advance: Called with 1 after each epoch.

    Returns:
        The logs that were written.
    """
    torch.set_num_threads(min(_available_cores(), MAX_THREADS))
    torch.manual_seed(settings.seed)
    images, targets = read_batch(train, settings.image_size)
    validation_images, validation_targets = read_batch(validation, settings.image_size)
    network = TwoHeadedResNet50(len(CLASSES))
    _start_shallow(network)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), settings.max_learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        settings.max_learning_rate,
        epochs=settings.epochs,
        steps_per_epoch=math.ceil(len(images) / settings.batch_size),
    )
    logs = TrainingLogs(settings=asdict(settings))
    write_labels(resources, CLASSES)
    for epoch in range(1, settings.epochs + 1):
        network.train()
        for batch, batch_targets in _augmented_batches(images, targets, settings):
            embeddings, logits = network(batch)
            loss = F.cross_entropy(logits, batch_targets, label_smoothing=settings.label_smoothing)
            loss = loss + settings.similarity_weight * similarity_loss(embeddings, batch_targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            logs.batch_loss.append(loss.detach())
        if epoch in settings.checkpoint_epochs:
            # A few small, augmented batches leave noisy running statistics, so take those of the plain images.
            update_bn([images], network)
            classification, embedding = validate_network(network, validation_images, validation_targets)
            logs.epoch.append(epoch)
            logs.classification_accuracy.append(classification)
            logs.embedding_accuracy.append(embedding)
            write_checkpoint(resources, epoch, network.state_dict())
        advance(1)
    write_logs(resources, logs)
    return logs


def similarity_loss(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Measure how far a batch is from the aim of clustering: cosine similarity 1 within a class and 0 across classes.

    Cross-entropy has another aim: a classifier may tell embeddings of different classes apart although they are more
    similar than any threshold.

    Args:
        embeddings: float32 [N, D].
        targets: Class indices, int64 [N].

    Returns:
        The mean squared difference over all N * N pairs, a scalar, 0 to 4.
    """
    directions = F.normalize(embeddings, dim=1)
    same = targets[:, None] == targets
    return F.mse_loss(directions @ directions.T, same.to(directions.dtype))


def validate_network(network: nn.Module, images: Tensor, targets: Tensor) -> tuple[float, float]:
    """Measure both heads.

    Args:
        network: Maps images to (embedding, logits). It stays in evaluation mode.
        images: Mean/std-normalized images, float32 [N, 3, S, S], at least two of each class.
        targets: Their class indices, int64 [N].

    Returns:
        The classification accuracy and the embedding accuracy, both 0 to 1. The embedding accuracy is the share of
        images whose most similar *other* image is of the same class (leave one out), as in clustering mode. It leaves
        the train images out, because the network has memorized them.
    """
    network.eval()
    with torch.inference_mode():
        embeddings, logits = network(images)
    directions = F.normalize(embeddings, dim=1)
    similarities = (directions @ directions.T).fill_diagonal_(-math.inf)
    neighbors = similarities.argmax(dim=1)
    return _share(logits.argmax(dim=1) == targets), _share(targets[neighbors] == targets)


def read_batch(part: LabeledFiles, image_size: int) -> tuple[Tensor, Tensor]:
    """Read images with the server's own preprocessing.

    Args:
        part: N image files.
        image_size: Side S in pixels.

    Returns:
        Mean/std-normalized images, float32 [N, 3, S, S], and class indices, int64 [N].
    """
    pixels = np.stack([decode_pixels(file.read_bytes(), image_size) for file in part.files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32) / 255
    images = (images - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)
    return images.contiguous(memory_format=torch.channels_last), torch.tensor(part.class_indices)


def _available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_shallow(network: nn.Module) -> None:
    # Residual blocks start as identities, which steadies so short a training of so deep a network.
    # Source: Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017, section 5.1.
    for block in network.modules():
        if isinstance(block, Bottleneck):
            nn.init.zeros_(block.bn3.weight)


def _augmented_batches(images: Tensor, targets: Tensor, settings: TrainingSettings) -> Iterator[tuple[Tensor, Tensor]]:
    for rows in torch.split(torch.randperm(len(images)), settings.batch_size):
        yield augment_images(images[rows], settings), targets[rows]


def _share(right: Tensor) -> float:
    return right.float().mean().item()
