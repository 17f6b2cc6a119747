"""Reading the network's class names, in the order of its outputs."""

from __future__ import annotations

import io
import json
import numbers
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference_export.class_names import equal_names
from inference_export.descriptions import describe_error, describe_value
from inference_export.errors import ResourcesError
from inference_export.regular_files import FileReader
from inference_export.resources.trained import LABELS, TrainedResources
from inference_export.resources.unpickling import read_plain_pickle

MAX_NAME_LENGTH = 255  # as of a folder's name
MAX_TEXT_BYTES = 16 * 2**20
_FORM = "{class name: index}"
_TEXT_FORMS = {
    ".json": f'{_FORM} or ["first class", "second class", ...] as JSON',
    ".txt": "one class name on each line, in the order of the network's outputs",
}


def read_labels(resources: TrainedResources, reader: FileReader) -> list[str]:
    """Read the class names.

    Args:
        resources: The trained resources. Their file ``labels`` is a pickle of {class name: index}; ``labels.json``
            holds the same or a list of names, ``labels.txt`` one name on each line.
        reader: Reads the files.

    Returns:
        The C' class names in index order.

    Raises:
        ResourcesError: There are no labels, or two files that contradict each other. A file is unsafe, does not number
            its classes from 0 to C' - 1, or has two names that are the same after Unicode normalization.
    """
    files = resources.labels_files()
    if not files:
        places = " and ".join(map(str, resources.labels_folders))
        raise ResourcesError(
            f"{resources.labels_folders[-1] / LABELS[0]} is missing, and so are {LABELS[1]} and {LABELS[2]} (looked "
            f"for in {places}). One of them must name the classes: a pickle of {_FORM}, the same as JSON, or one name "
            f"a line.",
            resources.labels_folders[-1] / LABELS[0],
        )
    names = {file: _READERS[file.suffix](file, reader) for file in files}
    first, *others = files
    for other in others:
        if names[other] != names[first]:
            raise ResourcesError(
                f"{first} and {other} contradict each other: {describe_value(_differing(names[first], names[other]))}. "
                f"Remove the one that is wrong.",
                other,
            )
    return names[first]


def _differing(one: list[str], other: list[str]) -> str:
    if len(one) != len(other):
        return f"{len(one)} and {len(other)} classes"
    index = next(place for place, (left, right) in enumerate(zip(one, other, strict=True)) if left != right)
    return f"class {index} is {one[index]} and {other[index]}"


def _read_pickle(path: Path, reader: FileReader) -> list[str]:
    labels = read_plain_pickle(reader, path, _FORM)
    if not isinstance(labels, dict) or not labels:
        raise ResourcesError(f"{path} holds {describe_value(labels)}, and must hold {_FORM}.", path)
    return _in_order(labels, path)


def _read_json(path: Path, reader: FileReader) -> list[str]:
    text = _read_text(path, reader)

    def refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            raise ValueError("a class name stands there twice")
        return values

    try:
        labels = json.loads(text, object_pairs_hook=refuse_repeated)
    except (ValueError, RecursionError) as error:
        raise ResourcesError(
            f"{path} is no JSON ({describe_error(error)}). It must hold {_TEXT_FORMS['.json']}.", path
        ) from error
    if isinstance(labels, list) and labels:
        return _check_names(labels, path)
    if not isinstance(labels, dict) or not labels:
        raise ResourcesError(f"{path} holds {describe_value(labels)}, and must hold {_TEXT_FORMS['.json']}.", path)
    return _in_order(labels, path)


def _read_lines(path: Path, reader: FileReader) -> list[str]:
    lines = [line.strip() for line in io.StringIO(_read_text(path, reader))]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise ResourcesError(f"{path} is empty. It must hold {_TEXT_FORMS['.txt']}.", path)
    return _check_names(lines, path)


_READERS: dict[str, Callable[[Path, FileReader], list[str]]] = {
    "": _read_pickle,
    ".json": _read_json,
    ".txt": _read_lines,
}


def _read_text(path: Path, reader: FileReader) -> str:
    try:
        return reader.read(path, MAX_TEXT_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise ResourcesError(
            f"{path} can't be read ({error.strerror}). Check the file and its permissions.", path
        ) from error
    except UnicodeDecodeError as error:
        raise ResourcesError(
            f"{path} is not UTF-8 text (byte {error.start}). It must hold {_TEXT_FORMS[path.suffix]}.", path
        ) from error


def _in_order(labels: dict[Any, Any], path: Path) -> list[str]:
    _check_names(list(labels), path)
    for name, index in labels.items():
        if isinstance(index, bool) or not isinstance(index, numbers.Integral):
            raise ResourcesError(
                f"{path} gives class {name!r} the index {describe_value(index)}, which is no whole number. It must "
                f"hold {_FORM}, the name first.",
                path,
            )
    names = sorted(labels, key=lambda name: int(labels[name]))
    for index, name in enumerate(names):
        if labels[name] != index:
            raise ResourcesError(
                f"{path} gives class {name!r} the index {describe_value(labels[name])}; the indices of {len(labels)} "
                f"classes must be 0 to {len(labels) - 1}, each once.",
                path,
            )
    return names


def _check_names(names: list[Any], path: Path) -> list[str]:
    seen: set[str] = set()
    for name in names:
        if not _is_name(name):
            raise ResourcesError(
                f"{path} names a class {describe_value(name)}; a class name is printable text of 1 to "
                f"{MAX_NAME_LENGTH} characters.",
                path,
            )
        if name in seen:
            raise ResourcesError(
                f"{path} names the class {describe_value(name)} twice. Each class needs its own.", path
            )
        seen.add(name)
    if same := equal_names(names):
        raise ResourcesError(
            f"{path} names two classes {same[0]!a} and {same[1]!a}, which are the same text in two spellings (Unicode "
            f"normalization). Give one of them another name.",
            path,
        )
    return names


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and len(name) <= MAX_NAME_LENGTH and bool(name.strip()) and name.isprintable()
