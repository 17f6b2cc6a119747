"""Finding and reading ``preprocessing.json``: the preprocessing that a network was trained with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_export.descriptions import describe_error, describe_type
from inference_export.errors import ResourcesError
from inference_export.regular_files import FileReader

PREPROCESSING_FILE = "preprocessing.json"
MAX_PREPROCESSING_BYTES = 2**20
_OPTION = "--preprocessing"


@dataclass(frozen=True, kw_only=True)
class PreprocessingFile:
    """A file that describes a preprocessing.

    Attributes:
        path: The file.
        values: The JSON object that it holds.
        is_named: Whether it was named with ``--preprocessing``, and so replaces the network's own preprocessing.
    """

    path: Path
    values: Mapping[str, Any]
    is_named: bool

    def __str__(self) -> str:
        return f"{_OPTION} {self.path}" if self.is_named else str(self.path)


def find_preprocessing_file(checkpoint: Path, resources: Path, named: Path | None = None) -> Path | None:
    """Find the file that describes the preprocessing.

    Args:
        checkpoint: The checkpoint, or the complete network. ``preprocessing.json`` may lie beside it.
        resources: Folder of the trained resources, where it may lie too, beside ``labels``.
        named: The file that the user named; None: none.

    Returns:
        The file; None: there is none.

    Raises:
        ResourcesError: Two different places hold one.
    """
    if named is not None:
        return named
    places = dict.fromkeys((checkpoint.parent / PREPROCESSING_FILE, resources / PREPROCESSING_FILE))
    files = [file for file in places if file.exists() or file.is_symlink()]
    if len(files) > 1:
        raise ResourcesError(
            f"{files[0]} and {files[1]} both describe the preprocessing. Keep the one that holds for "
            f"{checkpoint.name}, or name it with {_OPTION}.",
            files[0],
        )
    return files[0] if files else None


def read_preprocessing_file(path: Path, reader: FileReader, *, is_named: bool = False) -> PreprocessingFile:
    """Read a file that describes a preprocessing.

    Args:
        path: The file, as ``find_preprocessing_file`` returned it.
        reader: Reads the file.
        is_named: Whether the user named it.

    Raises:
        ResourcesError: The file can't be read, or holds no JSON object.
    """
    form = (
        "It must be a JSON object, such as "
        '{"image_size": 224, "resize": "crop", "crop_fraction": 0.875, "orientation": "upright"}.'
    )
    try:
        values = json.loads(reader.read(path, MAX_PREPROCESSING_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise ResourcesError(f"{path} can't be read: it {error.strerror}. {form}", path) from error
    except (ValueError, RecursionError) as error:
        raise ResourcesError(f"{path} is no JSON text ({describe_error(error)}). {form}", path) from error
    if not isinstance(values, dict):
        raise ResourcesError(f"{path} holds {describe_type(values)}. {form}", path)
    return PreprocessingFile(path=path, values=values, is_named=is_named)
