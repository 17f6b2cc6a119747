"""What the served model answers, and the entry that each image gets for it."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

ERROR = "ERROR"
PLAIN_OUTPUTS = (ERROR, "LABEL", "PROBABILITY")
DETAIL_OUTPUTS = ("CLASSES", "SCORES", "MATCHES", "NEIGHBOR", "NEIGHBOR_SIMILARITY")


class Tensors(Protocol):
    """A response, as tritonclient holds it."""

    def as_numpy(self, name: str) -> "NDArray[Any] | None":
        """Return an output, batch dimension first, or None if the response has none of that name."""


def output_names(*, details: bool) -> Sequence[str]:
    """Name the outputs that a request asks for."""
    return PLAIN_OUTPUTS + DETAIL_OUTPUTS if details else PLAIN_OUTPUTS


def read_entries(response: Tensors, images: int, *, details: bool) -> list[dict[str, Any]]:
    """Read one entry per image.

    Args:
        response: The answer to a request for :func:`output_names`.
        images: Number of images in the request.
        details: Whether to add the evidence.

    Returns:
        The entries, in the request's order.

    Raises:
        ValueError: An output is missing, or its rows are not those of the request.
    """
    columns = {}
    for name in output_names(details=details):
        column = response.as_numpy(name)
        if column is None or column.ndim != 2 or len(column) != images:  # noqa: PLR2004 - [images, values]
            shape = "missing" if column is None else list(column.shape)
            raise ValueError(f"output {name} is {shape}, not [{images}, ...]")
        columns[name] = column
    return [_entry({name: column[row] for name, column in columns.items()}, details=details) for row in range(images)]


def failed_entry(reason: str) -> dict[str, Any]:
    """Make the entry of an image that has no result."""
    return {"Label": None, "Probability": None, "Error": reason}


def _entry(row: dict[str, "NDArray[Any]"], *, details: bool) -> dict[str, Any]:
    reason = _text(row[ERROR][0])
    if reason:
        return failed_entry(reason)
    entry: dict[str, Any] = {"Label": _text(row["LABEL"][0]), "Probability": float(row["PROBABILITY"][0])}
    if details:
        classes = [_text(name) for name in row["CLASSES"]]
        neighbors = [
            {"Image": _text(name), "Similarity": float(similarity)}
            for name, similarity in zip(row["NEIGHBOR"], row["NEIGHBOR_SIMILARITY"], strict=True)
            if len(name)  # padding has an empty name
        ]
        entry["Scores"] = dict(zip(classes, map(float, row["SCORES"]), strict=True))
        # Without a base set there are no neighbors, and nothing to match.
        entry["Matches"] = dict(zip(classes, map(int, row["MATCHES"]), strict=True)) if neighbors else {}
        entry["Neighbors"] = neighbors
    return entry


def _text(value: bytes | str | np.bytes_) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
