"""The ensemble's answer: each image's output tensors, and the entry that the caller gets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ERROR = "ERROR"
NOTE = "NOTE"  # servers that were exported by earlier versions lack it
PLAIN_OUTPUTS = (ERROR, "LABEL", "PROBABILITY")
DETAIL_OUTPUTS = ("CLASSES", "SCORES", "MATCHES", "NEIGHBOR", "NEIGHBOR_SIMILARITY", "VERSION", "THRESHOLD")


class Tensors(Protocol):
    """A response as tritonclient holds it."""

    def as_numpy(self, name: str) -> "NDArray[Any] | None":
        """Return one output, batch dimension first, or None if the response lacks that output."""


@dataclass(frozen=True, kw_only=True)
class ImageTensors:
    """The output tensors for one image.

    Attributes:
        error: Why the image has no result; empty if it was classified.
        tensors: Each output without its batch dimension; empty if there is an error.
    """

    error: str = ""
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def output_names(*, details: bool) -> tuple[str, ...]:
    """Name the outputs that :func:`read_entry` needs."""
    return PLAIN_OUTPUTS + DETAIL_OUTPUTS if details else PLAIN_OUTPUTS


def split_by_image(response: Tensors, images: int, outputs: Sequence[str]) -> list[ImageTensors]:
    """Split a response into the tensors of each image.

    Args:
        response: The answer to a request for ``outputs``.
        images: Number of images in the request.
        outputs: Names of the outputs, including ``ERROR``.

    Returns:
        One item per image, in the request's order.

    Raises:
        ValueError: An output is missing, or does not have one row per image.
    """
    columns = {}
    for name in outputs:
        column = response.as_numpy(name)
        if column is None or column.ndim != 2 or len(column) != images:  # noqa: PLR2004 - [images, values]
            shape = "missing" if column is None else list(column.shape)
            raise ValueError(f"output {name} is {shape}, not [{images}, ...]")
        columns[name] = column
    errors = [_text(values[0]) for values in columns[ERROR]]
    return [
        ImageTensors(error=error) if error else ImageTensors(tensors={name: columns[name][row] for name in columns})
        for row, error in enumerate(errors)
    ]


def read_entry(image: ImageTensors, *, details: bool) -> dict[str, Any]:
    """Make the entry of one image, as :class:`inference_client.Classify` documents it.

    Args:
        image: The image's tensors, at least those of ``output_names(details=details)``; with details ``NOTE`` too if
            the server has it.
        details: Whether to add the evidence.

    Returns:
        The entry.

    Raises:
        ValueError: The tensors contradict each other.
    """
    if image.error:
        return {"Label": None, "Probability": None, "Error": image.error}
    row = image.tensors
    entry: dict[str, Any] = {"Label": _text(row["LABEL"][0]), "Probability": float(row["PROBABILITY"][0])}
    if details:
        classes = [_text(name) for name in row["CLASSES"]]
        neighbors = [
            {"Image": _text(name), "Similarity": float(similarity)}
            for name, similarity in zip(row["NEIGHBOR"], row["NEIGHBOR_SIMILARITY"], strict=True)
            if len(name)  # padding has an empty name
        ]
        has_base_set = bool(neighbors)
        entry["Scores"] = dict(zip(classes, map(float, row["SCORES"]), strict=True))
        entry["Matches"] = dict(zip(classes, map(int, row["MATCHES"]), strict=True)) if has_base_set else {}
        entry["Neighbors"] = neighbors
        entry["Version"] = int(row["VERSION"][0])
        entry["Threshold"] = _shortest(row["THRESHOLD"][0]) if has_base_set else None
        if NOTE in row and (note := _text(row[NOTE][0])):
            entry["Note"] = note
    return entry


def _text(value: bytes | str | np.bytes_) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _shortest(value: np.float32) -> float:
    # float(np.float32(0.8)) is 0.800000011920929, but somebody set 0.8.
    return float(str(value))
