"""Choosing a checkpoint: the only one, or the best one by the training logs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_export.descriptions import describe_error, describe_value
from inference_export.errors import ResourcesError
from inference_export.regular_files import FileReader
from inference_export.resources.preprocessing_file import PREPROCESSING_FILE
from inference_export.resources.unpickling import read_plain_pickle

MODELS = "models"
LOGS = "logs/logs"
MAX_EPOCH = 10**9
_ACCURACY = {"classification": "classificationAccuracy", "clustering": "embeddingAccuracy"}
_SHOWN_ERROR_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The chosen ``state_dict`` file.

    Attributes:
        path: The file.
        reason: Why this file was chosen, in words.
        candidates: Names of all files in ``models/``, sorted.
    """

    path: Path
    reason: str
    candidates: list[str]


def list_checkpoints(resources: Path) -> list[Path]:
    """List the files in ``models/``, sorted by name, except hidden ones and the description of the preprocessing.

    Args:
        resources: Folder of the trained resources.

    Raises:
        ResourcesError: The folder is missing, holds no file, or holds a link that leads nowhere.
    """
    folder = resources / MODELS
    if not folder.is_dir():
        raise ResourcesError(f"{folder} is missing. It must hold one or more PyTorch state_dict files.", folder)
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in visible:
        if not path.exists():
            raise ResourcesError(f"{path} is a link that leads nowhere. Mend or remove it.", path)
    files = [path for path in visible if path.is_file() and path.name != PREPROCESSING_FILE]
    if not files:
        raise ResourcesError(f"{folder} holds no file. It must hold one or more PyTorch state_dict files.", folder)
    return files


def select_checkpoint(resources: Path, mode: str, reader: FileReader) -> Checkpoint:
    """Choose the only checkpoint, or the checkpoint of the epoch with the best validation.

    Args:
        resources: Folder of the trained resources.
        mode: ``classification`` (judged by ``classificationAccuracy``) or ``clustering`` (``embeddingAccuracy``).
        reader: Reads the logs if there are several checkpoints.

    Returns:
        The checkpoint. On a tie, the one of the first epoch with the highest accuracy.

    Raises:
        ResourcesError: There is no checkpoint, the logs are unusable, or the best epoch's checkpoint is missing.
    """
    files = list_checkpoints(resources)
    candidates = [file.name for file in files]
    if len(files) == 1:
        return Checkpoint(path=files[0], reason="the only one", candidates=candidates)
    accuracy = _ACCURACY[mode]
    path = resources / LOGS
    epochs, values = _read_validation(reader, path, accuracy)
    usable = [value for value in values if not math.isnan(value)]
    if not usable:
        raise ResourcesError(f"{path} has no {accuracy} that is a number. Keep one file in {resources / MODELS}.", path)
    best = max(usable)
    epoch = epochs[values.index(best)]
    chosen = resources / MODELS / f"model_{epoch}"
    if chosen not in files:
        raise ResourcesError(
            f"{chosen} is missing: {path} has the best validation {accuracy}, {best:.4g}, at epoch {epoch}, and "
            f"{resources / MODELS} holds {', '.join(candidates)}.\n"
            f"  Put that checkpoint back, or keep only the file to be served.",
            chosen,
        )
    reason = f"the best of {len(values)} epochs, with a validation {accuracy} of {best:.4g}"
    return Checkpoint(path=chosen, reason=reason, candidates=candidates)


def _read_validation(reader: FileReader, path: Path, accuracy: str) -> tuple[list[int], list[float]]:
    form = "training logs: ['epochBased']['validation'] with the lists epoch, " + " and ".join(_ACCURACY.values())
    logs = read_plain_pickle(reader, path, form)
    try:
        validation = logs["epochBased"]["validation"]
        epochs = [int(epoch) for epoch in _list(validation, "epoch")]
        values = [float(value) for value in _list(validation, accuracy)]
    except (KeyError, TypeError, ValueError, IndexError, ArithmeticError, RuntimeError) as error:
        raise ResourcesError(
            f"{path} lacks the {form} ({describe_error(error)[:_SHOWN_ERROR_LENGTH]}). They tell which checkpoint is "
            f"best. Mend the file, or keep only one file in {MODELS}/.",
            path,
        ) from error
    if wrong := [epoch for epoch in epochs if not 0 <= epoch <= MAX_EPOCH]:
        raise ResourcesError(f"{path} lists the epoch {describe_value(wrong[0])}; epochs are 0 to {MAX_EPOCH}.", path)
    if len(epochs) != len(values) or not epochs:
        raise ResourcesError(f"{path} lists {len(epochs)} epochs and {len(values)} values of {accuracy}.", path)
    return epochs, values


def _list(validation: Any, key: str) -> list[Any]:
    values = validation[key]
    if not isinstance(values, list):
        raise TypeError(f"{key} is {describe_value(values)}, no list")
    return values
