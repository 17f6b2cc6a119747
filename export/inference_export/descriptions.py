"""Short descriptions of values from strangers' files and of errors from strangers' code."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any

import numpy as np

from inference_client.command_line.formatting import first_few, printable

_SHOWN_LENGTH = 40
_SHOWN_KEY_LENGTH = 100
_SHOWN_BITS = 64


def describe_value(value: Any) -> str:
    """Return a number or the start of a text as it is, and the type and length of any other value."""
    if isinstance(value, int) and value.bit_length() > _SHOWN_BITS:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str):
        return repr(value[:_SHOWN_LENGTH]) + ("..." if len(value) > _SHOWN_LENGTH else "")
    if isinstance(value, (int, float, np.number, type(None))):
        return f"{value!r}"
    kind = type(value).__name__
    return f"{kind} of {len(value)}" if isinstance(value, Sized) else kind


def describe_type(value: Any) -> str:
    """Name the type of a value, and the length of a tuple or list."""
    kind = type(value).__name__
    return f"{kind} of {len(value)}" if isinstance(value, (tuple, list)) else kind


def describe_keys(keys: Sequence[Any]) -> str:
    """Name the first few keys of a dictionary, and count the others."""
    return first_few(
        [printable(key[:_SHOWN_KEY_LENGTH]) if isinstance(key, str) else describe_value(key) for key in keys]
    )


def describe_error(error: BaseException) -> str:
    """Give an exception's type and the first line of its message, as printable text."""
    first, *_ = str(error).strip().splitlines() or [""]
    first = printable(first)  # it may quote names from a stranger's file
    text = f"{type(error).__name__}: {first.rstrip('.')}" if first else type(error).__name__
    return f"it would end this program ({text})" if isinstance(error, SystemExit) else text
