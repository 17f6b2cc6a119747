"""Class names that look the same and are not."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable


def equal_names(names: Iterable[str]) -> tuple[str, str] | None:
    """Find two class names that are the same text after Unicode normalization (NFC).

    Args:
        names: Class names.

    Returns:
        The first such pair; None if all names differ.
    """
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            return other, name
    return None
