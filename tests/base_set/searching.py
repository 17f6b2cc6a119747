"""Searches every byte of files, with no help from the code under test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path


def find_bytes(places: Iterable[Path], needles: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Search files, and all files of folders.

    Args:
        places: Files and folders, which need not exist.
        needles: What to look for, by name.

    Returns:
        The name of each needle that is found, and the files that hold it.
    """
    found: dict[str, list[str]] = {}
    for place in places:
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if not file.is_file():
                continue
            content = file.read_bytes()
            for name, needle in needles.items():
                if needle in content or needle in str(file).encode():
                    found.setdefault(name, []).append(str(file))
    return found
