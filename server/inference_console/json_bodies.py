"""Parses a body of JSON: few values, though texts among them may be as long as an image."""

from __future__ import annotations

import json
from typing import Any

MAX_VALUES = 10_000
_MARKS = b",[{"  # one before each value but the first; base64 has none of them


class JsonError(ValueError):
    """The body is no JSON, or holds too many values; the message says which."""


def parse(body: bytes | bytearray) -> Any:
    """Parse JSON.

    96 MiB of ``[],[],[],`` would become 2 GB of Python objects, so values are counted first.

    Raises:
        JsonError: It is no JSON in UTF-8, or holds more than ``MAX_VALUES`` values.
    """
    if sum(map(body.count, _MARKS)) > MAX_VALUES:
        raise JsonError(f"The body holds more than {MAX_VALUES} values.")
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise JsonError(f"The body is no JSON: {error}.") from error
