"""Reading the network's class names, in the order of its outputs."""

from __future__ import annotations

import numbers
from pathlib import Path
from typing import Any

from inference_export.class_names import equal_names
from inference_export.descriptions import describe_value
from inference_export.errors import ResourcesError
from inference_export.regular_files import FileReader
from inference_export.resources.unpickling import read_plain_pickle

LABELS = "labels"
MAX_NAME_LENGTH = 255  # as of a folder's name


def read_labels(resources: Path, reader: FileReader) -> list[str]:
    """Read the class names.

    Args:
        resources: Folder of the trained resources. Its file ``labels`` is a pickle of {class name: index}.
        reader: Reads the file.

    Returns:
        The C' class names in index order.

    Raises:
        ResourcesError: ``labels`` is missing or unsafe, does not number its classes from 0 to C' - 1, or has two names
            that are the same after Unicode normalization.
    """
    path = resources / LABELS
    labels = read_plain_pickle(reader, path, "{class name: index}")
    if not isinstance(labels, dict) or not labels:
        raise ResourcesError(f"{path} holds {describe_value(labels)}, and must hold {{class name: index}}.", path)
    for name, index in labels.items():
        if not _is_name(name):
            raise ResourcesError(
                f"{path} names a class {describe_value(name)}; a class name is printable text of 1 to "
                f"{MAX_NAME_LENGTH} characters.",
                path,
            )
        if isinstance(index, bool) or not isinstance(index, numbers.Integral):
            raise ResourcesError(
                f"{path} gives class {name!r} the index {describe_value(index)}, which is no whole number.", path
            )
    names = sorted(labels, key=lambda name: int(labels[name]))
    for index, name in enumerate(names):
        if labels[name] != index:
            raise ResourcesError(
                f"{path} gives class {name!r} the index {describe_value(labels[name])}; the indices of {len(labels)} "
                f"classes must be 0 to {len(labels) - 1}, each once.",
                path,
            )
    if same := equal_names(names):
        raise ResourcesError(
            f"{path} names two classes {same[0]!a} and {same[1]!a}, which are the same text in two spellings (Unicode "
            f"normalization). Give one of them another name.",
            path,
        )
    return names


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= MAX_NAME_LENGTH and bool(name.strip()) and name.isprintable()
