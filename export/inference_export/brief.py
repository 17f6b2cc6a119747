"""Values from strangers' files, said in a few characters whatever they hold."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import numpy as np

_SHOWN_KEYS = 3
_SHOWN_LENGTH = 40
_SHOWN_KEY_LENGTH = 100
_SHOWN_BITS = 64


def brief(value: Any) -> str:
    """Say what a value is, in a few characters whatever it holds."""
    kind = type(value).__name__
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        return repr(value[:_SHOWN_LENGTH]) + ("..." if len(value) > _SHOWN_LENGTH else "")
    if isinstance(value, (int, float, np.number, type(None))):
        return f"{value!r}"
    return f"{kind} of {len(value)}" if isinstance(value, Sized) else kind


def some(keys: list[Any]) -> str:
    """Name the first few keys of a dictionary, and say how many more there are."""
    names = ", ".join(key[:_SHOWN_KEY_LENGTH] if isinstance(key, str) else brief(key) for key in keys[:_SHOWN_KEYS])
    return names if len(keys) <= _SHOWN_KEYS else f"{names} and {len(keys) - _SHOWN_KEYS} more"


def said(error: BaseException) -> str:
    """Return an exception's type and the first line of its message."""
    first, *_ = str(error).strip().splitlines() or [""]
    text = f"{type(error).__name__}: {first.rstrip('.')}" if first else type(error).__name__
    return f"it would end this program ({text})" if isinstance(error, SystemExit) else text
