"""Writes trained resources in the documented form: ``labels``, ``models/model_<epoch>`` and ``logs/logs``."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference_export.errors import ResourcesError
from inference_export.regular_files import FileReader
from inference_export.resources.unpickling import read_plain_pickle

if TYPE_CHECKING:
    from torch import Tensor

LABELS = "labels"
MODELS = "models"
LOGS = "logs/logs"


@dataclass(kw_only=True)
class TrainingLogs:
    """The logs of a training.

    Attributes:
        settings: The settings of the training, plain values by name.
        batch_loss: Training loss of each batch, scalar tensors.
        epoch: Epochs after which a checkpoint was validated and written, from 1.
        classification_accuracy: Share of validation images classified correctly, 0 to 1, for each of ``epoch``.
        embedding_accuracy: Share of validation images whose nearest neighbor is of the same class, 0 to 1, for each of
            ``epoch``.
    """

    settings: Mapping[str, Any]
    batch_loss: list[Tensor] = field(default_factory=list)
    epoch: list[int] = field(default_factory=list)
    classification_accuracy: list[float] = field(default_factory=list)
    embedding_accuracy: list[float] = field(default_factory=list)


@contextmanager
def staged_resources(destination: Path) -> Iterator[Path]:
    """Provide a folder for trained resources, and move it into place at the end.

    Args:
        destination: The place of the resources. Resources that are there are replaced at the end.

    Yields:
        An empty folder beside ``destination``, removed if the body fails or is interrupted.
    """
    staging = destination.with_name(f".{destination.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        if destination.exists():
            shutil.rmtree(destination)
        staging.rename(destination)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_labels(resources: Path, class_names: Sequence[str]) -> None:
    """Write ``labels``: the names of the C' classes, in index order."""
    with (resources / LABELS).open("wb") as file:
        pickle.dump({name: index for index, name in enumerate(class_names)}, file)


def write_checkpoint(resources: Path, epoch: int, state: Mapping[str, Tensor]) -> None:
    """Write ``models/model_<epoch>``: the network's ``state_dict`` after that epoch."""
    import torch

    path = checkpoint_path(resources, epoch)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def write_logs(resources: Path, logs: TrainingLogs) -> None:
    """Write ``logs/logs`` as the original trainer does: accuracies as numpy scalars, losses as torch tensors."""
    path = resources / LOGS
    path.parent.mkdir(parents=True, exist_ok=True)
    validation = {
        "epoch": list(logs.epoch),
        "classificationAccuracy": [np.float64(value) for value in logs.classification_accuracy],
        "embeddingAccuracy": [np.float64(value) for value in logs.embedding_accuracy],
    }
    with path.open("wb") as file:
        pickle.dump(
            {
                "settings": dict(logs.settings),
                "batchBased": {"train": {"loss": list(logs.batch_loss)}},
                "epochBased": {"validation": validation},
            },
            file,
        )


def are_complete(resources: Path, settings: Mapping[str, Any]) -> bool:
    """Say whether the resources are complete and come from a training with these settings."""
    try:
        logs = read_plain_pickle(FileReader(), resources / LOGS, "training logs")
        return (
            logs["settings"] == dict(settings)
            and (resources / LABELS).is_file()
            and all(checkpoint_path(resources, epoch).is_file() for epoch in logs["epochBased"]["validation"]["epoch"])
        )
    except (ResourcesError, KeyError, TypeError):
        return False


def checkpoint_path(resources: Path, epoch: int) -> Path:
    """Return the path of an epoch's checkpoint."""
    return resources / MODELS / f"model_{epoch}"
