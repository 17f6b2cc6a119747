"""What an export wrote into a version folder, checked as it is read: the folder may have been copied, or edited."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from inference_export.errors import RepositoryError
from inference_export.regular_files import read_regular_file

Check = Callable[[Any], bool]
MAX_JSON_BYTES = 2**24
MAX_NAMES_BYTES = 2**28


def read_text(file: Path, max_bytes: int) -> str:
    """Read a text file.

    Args:
        file: The file.
        max_bytes: Longest file that is read.

    Raises:
        RepositoryError: It can't be read, is longer, or is no UTF-8.
    """
    try:
        return read_regular_file(file, max_bytes).decode("utf-8")
    except OSError as error:
        raise damaged(file, f"it can't be read, {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise damaged(file, f"it is no text in UTF-8, {error}") from error


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        RepositoryError: It can't be read, or is none.
    """
    try:
        return json.loads(read_text(file, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise damaged(file, f"it is no JSON, {error}") from error


def read_settings(file: Path) -> dict[str, Any]:
    """Read mode, classes and K, and in clustering mode threshold and unknown label, as ``cluster_head`` reads them.

    Raises:
        RepositoryError: They are not what an export writes.
    """
    settings = read_json(file)
    _require(file, settings, _SETTINGS)
    if settings["mode"] == "clustering":
        _require(file, settings, _CLUSTERING_SETTINGS)
    return dict(settings)


def read_provenance(file: Path) -> dict[str, Any]:
    """Read what a version was made of.

    Raises:
        RepositoryError: It is not what an export writes.
    """
    provenance = read_json(file)
    _require(file, provenance, _PROVENANCE)
    # Unknown to earlier exports.
    _require(file, provenance, {key: check for key, check in _LATER_PROVENANCE.items() if key in provenance})
    return dict(provenance)


def check_class_sizes(file: Path, classes: int, images: int) -> None:
    """Check the numbers of base images.

    Raises:
        RepositoryError: They are not one for each class, or not so many in all.
    """
    sizes = read_json(file)
    if not isinstance(sizes, list) or not all(_is_count(size) for size in sizes):
        raise damaged(file, "it must list whole numbers of 1 or more")
    if len(sizes) != classes or sum(sizes) != images:
        raise damaged(file, f"{len(sizes)} class sizes of {classes} classes, {sum(sizes)} images of {images}")


def damaged(file: Path, problem: str) -> RepositoryError:
    """Make the error that says what is wrong with a file."""
    return RepositoryError(f"{file} is damaged: {problem}. Run the export again.", file)


def _require(file: Path, values: Any, checks: Mapping[str, Check]) -> None:
    if not isinstance(values, dict):
        raise damaged(file, f"it holds {type(values).__name__}, no object")
    for key, check in checks.items():
        if key not in values:
            raise damaged(file, f"it lacks {key}")
        if not check(values[key]):
            raise damaged(file, f"its {key} is {values[key]!a:.60}")


def _is_text(value: Any) -> bool:
    """Say whether it is text that files and answers can hold: a lone surrogate has no UTF-8."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= each <= "\udfff" for each in value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _are_classes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(_is_text(name) and name for name in value)
        and len(set(value)) == len(value)
    )


def _is_threshold(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -1 <= value <= 1


_SETTINGS: Mapping[str, Check] = {
    "mode": lambda value: value in ("classification", "clustering"),
    "classes": _are_classes,
    "neighbors": _is_count,
}
_CLUSTERING_SETTINGS: Mapping[str, Check] = {
    "threshold": _is_threshold,
    "unknown_label": lambda value: value is None or _is_text(value),
}
_PROVENANCE: Mapping[str, Check] = {"graph": _is_text, "preprocessing": _is_text}
_LATER_PROVENANCE: Mapping[str, Check] = {
    "exported": _is_text,
    "checkpoint": _is_text,
    "options": lambda value: isinstance(value, dict) and _is_text(value.get("precision", "")),
    "network": lambda value: value is None or (isinstance(value, dict) and _is_text(value.get("name"))),
}
