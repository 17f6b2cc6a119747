"""Choosing a checkpoint: the one that is named, the only one, or the best one by the training logs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_client.command_line.formatting import first_few
from inference_export.descriptions import describe_error, describe_value
from inference_export.errors import ResourcesError
from inference_export.regular_files import FileReader
from inference_export.resources.trained import LOGS, MODELS, TrainedResources, list_checkpoints
from inference_export.resources.unpickling import read_plain_pickle

MAX_EPOCH = 10**9
_ACCURACY = {"classification": "classificationAccuracy", "clustering": "embeddingAccuracy"}
_SHOWN_ERROR_LENGTH = 200


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The chosen checkpoint.

    Attributes:
        path: The file.
        reason: Why this file was chosen, in words.
        candidates: Names of all files among which it was chosen, sorted.
    """

    path: Path
    reason: str
    candidates: list[str]


def select_checkpoint(resources: TrainedResources, mode: str, reader: FileReader) -> Checkpoint:
    """Choose the checkpoint that the user names, the only one, or that of the epoch with the best validation.

    Args:
        resources: The trained resources.
        mode: ``classification`` (judged by ``classificationAccuracy``) or ``clustering`` (``embeddingAccuracy``).
        reader: Reads the logs if there are several checkpoints.

    Returns:
        The checkpoint. On a tie, the one of the first epoch with the highest accuracy.

    Raises:
        ResourcesError: There is no checkpoint, the logs are unusable, or the best epoch's checkpoint is missing.
    """
    if resources.named is not None:
        return Checkpoint(path=resources.named, reason="the one that was named", candidates=[resources.named.name])
    folder = resources.folder
    files = list_checkpoints(folder)
    candidates = [file.name for file in files]
    if len(files) == 1:
        return Checkpoint(path=files[0], reason="the only one", candidates=candidates)
    accuracy = _ACCURACY[mode]
    path = folder / LOGS
    if not path.exists():
        raise ResourcesError(
            f"{folder / MODELS} holds {first_few(candidates)}, and {path} is missing, which would tell which of them "
            f"is best. Choose one, as in --checkpoint {candidates[-1]}, or keep only the file to be served.",
            path,
        )
    epochs, values = _read_validation(reader, path, accuracy)
    usable = [value for value in values if not math.isnan(value)]
    if not usable:
        raise ResourcesError(f"{path} has no {accuracy} that is a number. Choose a file with --checkpoint.", path)
    best = max(usable)
    epoch = epochs[values.index(best)]
    matching = [file for file in files if file.name.partition(".")[0] == f"model_{epoch}"]
    if len(matching) != 1:
        problem = f"stands there {len(matching)} times" if matching else "is missing"
        raise ResourcesError(
            f"{folder / MODELS / f'model_{epoch}'} {problem}: {path} has the best validation {accuracy}, {best:.4g}, "
            f"at epoch {epoch}, and {folder / MODELS} holds {', '.join(candidates)}.\n"
            f"  Keep or put back that one, or choose a file with --checkpoint.",
            folder / MODELS,
        )
    reason = f"the best of {len(values)} epochs, with a validation {accuracy} of {best:.4g}"
    return Checkpoint(path=matching[0], reason=reason, candidates=candidates)


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
            f"best. Mend the file, or choose a checkpoint with --checkpoint.",
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
