"""Telling which outputs of a complete network are the embeddings and the logits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference_client.command_line.formatting import first_few, printable
from inference_export.errors import NetworkError

_EMBEDDING = ("embedding", "embeddings", "embed", "feature", "features", "feat")
_LOGITS = ("logits", "logit", "output", "outputs", "class_logits", "scores", "predictions")
_SUM_TOLERANCE = 1e-3


def choose_outputs(
    results: Mapping[str, npt.NDArray[np.float32]], classes: int, *, wanted: str | None, ordered: bool, path: Path
) -> tuple[str, str]:
    """Choose the outputs by the names that the user gives, by their own names, by their shapes, or by their order.

    Args:
        results: Every output's name and its values for N images.
        classes: Number of classes C'.
        wanted: ``EMBEDDING,LOGITS``, the names that the user gives; None: none.
        ordered: Whether two outputs are the pair (embedding, logits), as a PyTorch network returns them.
        path: The file, for messages.

    Returns:
        Names of the embeddings and of the logits.

    Raises:
        NetworkError: There are no such outputs, or they are ambiguous.
    """
    shown = first_few([f"{printable(name[:100])} {list(values.shape)}" for name, values in results.items()], 6)
    if wanted is not None:
        names = tuple(part.strip() for part in wanted.split(","))
        if missing := [name for name in names if name not in results]:
            raise NetworkError(f"--outputs {wanted}: {path} has no output {missing[0]}. It has {shown}.")
        return names[0], names[1]
    rows = {name: values for name, values in results.items() if values.ndim == 2 and values.shape[1]}  # noqa: PLR2004
    if len(rows) < 2:  # noqa: PLR2004 - embeddings and logits
        raise NetworkError(
            f"{path} must return two outputs, embeddings [N, D] and logits [N, {classes}], and returns {shown} for 3 "
            f"images. Export it with both: a network that returns (embedding, logits)."
        )
    named = _by_name(rows)
    if named is not None:
        _refuse_exchanged(named, {name: values.shape[1] for name, values in rows.items()}, classes, path)
        return named
    first, second, *others = rows
    fitting = [name for name, values in rows.items() if values.shape[1] == classes]
    if not others and (fitting == [second] or (ordered and fitting != [first])):
        return first, second
    if not others and fitting == [first]:
        return second, first
    raise NetworkError(
        f"{path}: which of its outputs are the embeddings, and which the logits? It returns {shown} for 3 images, and "
        f"labels names {classes} classes. Say so with --outputs EMBEDDING,LOGITS, as in --outputs "
        f"{printable(first[:100])},{printable(second[:100])}."
    )


def _refuse_exchanged(named: tuple[str, str], widths: Mapping[str, int], classes: int, path: Path) -> None:
    embedding, logits = named
    if widths[logits] == classes or widths[embedding] != classes:
        return
    width = widths[logits]
    embedding, logits = (printable(name[:100]) for name in named)
    raise NetworkError(
        f"{path}: its output {logits} has {width} values an image, and its output {embedding} has {classes}, one for "
        f"each class in labels. The names seem to be exchanged. Say so with --outputs {logits},{embedding}, or export "
        f"the network again with output_names in the order of its outputs."
    )


def _by_name(names: Mapping[str, object]) -> tuple[str, str] | None:
    embeddings, logits = (
        [name for name in names if name.lower().rpartition(".")[2] in known] for known in (_EMBEDDING, _LOGITS)
    )
    if len(names) == 2 and len(embeddings) == 1:  # noqa: PLR2004
        logits = [name for name in names if name not in embeddings]
    return (embeddings[0], logits[0]) if len(embeddings) == len(logits) == 1 else None


def refuse_probabilities(logits: npt.NDArray[np.float32], name: str, path: Path) -> None:
    """Refuse logits that went through a softmax already: the export adds one.

    Raises:
        NetworkError: Each row is of 0 to 1, and sums to 1.
    """
    sums = logits.sum(axis=1)
    if (logits >= 0).all() and (logits <= 1).all() and (np.abs(sums - 1) <= _SUM_TOLERANCE).all():
        raise NetworkError(
            f"{path}: its output {printable(name[:100])} seems to hold probabilities, not logits: the values for each "
            f"image are of 0 to 1 and sum to 1. The export adds the softmax itself. Export the network without its "
            f"softmax, or name the output before it with --outputs EMBEDDING,LOGITS."
        )
