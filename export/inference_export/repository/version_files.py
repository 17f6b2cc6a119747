"""Files in a version folder, checked as they are read: a folder may have been copied or edited."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from inference_export.errors import RepositoryError
from inference_export.regular_files import read_regular_file

SETTINGS_FILE = "settings.json"
MAX_JSON_BYTES = 2**24
MAX_NAMES_BYTES = 2**28
_NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL ends a file name, and a lone surrogate has no UTF-8


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``cluster_head`` answers by: its ``settings.json``.

    Attributes:
        mode: ``classification`` or ``clustering``.
        classes: Class names in index order.
        neighbors: Number K of base images that an answer names.
        threshold: Lowest similarity that counts as a match, -1 to 1. Clustering mode only.
        unknown_label: Label of a query without a match; None: the nearest class answers. Clustering mode only.
    """

    mode: str
    classes: list[str]
    neighbors: int
    threshold: float = 0
    unknown_label: str | None = None


def write_settings(file: Path, settings: Settings) -> None:
    """Write settings, in classification mode without threshold and unknown label."""
    entries = asdict(settings)
    if settings.mode == "classification":
        del entries["threshold"], entries["unknown_label"]
    write_json(file, entries)


def read_settings(file: Path) -> Settings:
    """Read settings.

    Raises:
        RepositoryError: The file can't be read, or no export wrote it.
    """
    take = partial(take_entry, file, read_object(file))
    settings = Settings(
        mode=take("mode", lambda value: value in ("classification", "clustering")),
        classes=take("classes", _are_classes),
        neighbors=take("neighbors", is_count),
    )
    if settings.mode == "classification":
        return settings
    return replace(
        settings,
        threshold=take("threshold", lambda value: type(value) in (int, float) and -1 <= value <= 1),
        unknown_label=take("unknown_label", lambda value: value is None or is_text(value)),
    )


def read_geometry(folder: Path) -> dict[str, Any]:
    """Read the geometry of a version folder of ``preprocess``; empty for an export of before there was one.

    Raises:
        RepositoryError: The settings can't be read, or no export wrote them.
    """
    file = folder / SETTINGS_FILE
    geometry: dict[str, Any] = take_entry(
        file, read_object(file), "geometry", lambda value: isinstance(value, dict), {}
    )
    return geometry


def check_class_sizes(file: Path, classes: int, images: int) -> None:
    """Check that a file lists a number of base images for each class.

    Raises:
        RepositoryError: The file lists something else, or not so many classes or images.
    """
    sizes = _read_json(file)
    if not isinstance(sizes, list) or not all(map(is_count, sizes)):
        raise damaged(file, "it must list whole numbers of 1 or more")
    if len(sizes) != classes or sum(sizes) != images:
        raise damaged(file, f"{len(sizes)} class sizes of {classes} classes, {sum(sizes)} images of {images}")


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RepositoryError: The file can't be read, or holds no JSON object.
    """
    entries = _read_json(file)
    if not isinstance(entries, dict):
        raise damaged(file, f"it holds {type(entries).__name__}, no object")
    return entries


def take_entry(
    file: Path, entries: dict[str, Any], key: str, is_valid: Callable[[Any], object], *default: object
) -> Any:
    """Return the value of an entry, or ``default``, if given, where the entry is missing.

    Raises:
        RepositoryError: The entry is missing and has no default, or its value is not valid.
    """
    if key not in entries and not default:
        raise damaged(file, f"it lacks {key}")
    if key in entries and not is_valid(entries[key]):
        raise damaged(file, f"its {key} is {entries[key]!a:.60}")
    return entries.get(key, *default)


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file that people can read."""
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_text(file: Path, max_bytes: int) -> str:
    """Read a text file.

    Args:
        file: The file.
        max_bytes: Longest file that is read.

    Raises:
        RepositoryError: The file can't be read, is longer, or is not UTF-8.
    """
    try:
        return read_regular_file(file, max_bytes).decode("utf-8")
    except OSError as error:
        raise damaged(file, f"it can't be read, {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise damaged(file, f"it is no text in UTF-8, {error}") from error


def is_text(value: Any) -> bool:
    """Tell whether a value is text that files and answers can hold."""
    return isinstance(value, str) and not _NO_TEXT.search(value)


def is_count(value: Any) -> bool:
    """Tell whether a value is a whole number of 1 or more."""
    return type(value) is int and value >= 1


def damaged(file: Path, problem: str) -> RepositoryError:
    """Make the error that says what is wrong with a file."""
    return RepositoryError(f"{file} is damaged: {problem}. Run the export again.", file)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(read_text(file, MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise damaged(file, f"it is no JSON, {error}") from error


def _are_classes(value: Any) -> bool:
    is_list = isinstance(value, list) and len(value) > 0
    return is_list and all(is_text(name) and name for name in value) and len(set(value)) == len(value)
