"""Class names that look the same but differ."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def equal_names(names: Iterable[str]) -> tuple[str, str] | None:
    """Find two class names that are the same text after Unicode normalization (NFC).

    Returns:
        The first such pair; None if all names differ.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            return other, name
    return None
