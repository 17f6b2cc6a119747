"""Reads JSON whose texts may be as long as an image, in bounded memory and without stopping the event loop.

``json`` alone makes 2 GB of Python objects out of 96 MiB of ``[],[],[],``, and holds all threads up while it reads.
Here long texts are cut out first, as bytes; what is left must be short.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

LONG_TEXT_BYTES = 256
MAX_REST_BYTES = 2**18
_MAX_ESCAPES = 1000
_PLACEHOLDER = b"NaN"  # no JSON, so nothing else in a body can mean it
_BACKSLASH = ord("\\")


class JsonError(ValueError):
    """The body is no JSON, or holds more than images; the message says which."""


def parse(body: bytes | bytearray) -> Any:
    """Parse JSON.

    Args:
        body: UTF-8.

    Returns:
        The value. Texts of ``LONG_TEXT_BYTES`` or more are bytes, others str.

    Raises:
        JsonError: It is no JSON; or it has more than ``MAX_REST_BYTES`` besides long texts, or a long text that is not
            ASCII.
    """
    texts: list[bytes] = []
    rest = bytearray()
    at = 0
    for begin, end in _texts(body):
        _require_short(len(rest) + begin - at)
        rest += body[at:begin]
        if end - begin > LONG_TEXT_BYTES:
            texts.append(_long_text(body[begin + 1 : end]))
            rest += _PLACEHOLDER
        else:
            rest += body[begin : end + 1]
        at = end + 1
    _require_short(len(rest) + len(body) - at)
    rest += body[at:]
    left = iter(texts)
    try:
        value = json.loads(rest.decode(), parse_constant=lambda name: _next_text(left, name))
    except (ValueError, RecursionError) as error:
        raise JsonError(f"The body is no JSON: {error}.") from error
    if next(left, None) is not None:
        raise JsonError("The body is no JSON.")
    return value


def _texts(body: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """Find where each text begins and ends: the places of its quotation marks."""
    escapes = 0
    end = -1
    while (begin := body.find(b'"', end + 1)) >= 0:
        end = body.find(b'"', begin + 1)
        while end >= 0 and _is_escaped(body, end):
            escapes += 1
            if escapes > _MAX_ESCAPES:
                raise JsonError(f"The body holds more than {_MAX_ESCAPES} escaped quotation marks. Base64 has none.")
            end = body.find(b'"', end + 1)
        if end < 0:
            raise JsonError("The body is no JSON: its last text does not end.")
        yield begin, end


def _is_escaped(body: bytes | bytearray, place: int) -> bool:
    backslashes = 0
    while body[place - 1 - backslashes] == _BACKSLASH:
        backslashes += 1
        if backslashes > _MAX_ESCAPES:
            raise JsonError(f"The body holds more than {_MAX_ESCAPES} backslashes in a row. Base64 has none.")
    return backslashes % 2 == 1


def _long_text(written: bytes | bytearray) -> bytes:
    if not written.isascii():
        raise JsonError(f"A text of {len(written)} bytes is not ASCII, as base64 is.")
    if _BACKSLASH not in written:
        return bytes(written)
    try:
        text: str = json.loads(b'"' + written + b'"')  # PHP writes / as \/
    except ValueError as error:
        raise JsonError(f"The body is no JSON: {error}.") from error
    return text.encode("utf-8", "replace")


def _next_text(left: Iterator[bytes], name: str) -> bytes:
    text = next(left, None)
    if text is None or name != _PLACEHOLDER.decode():
        raise JsonError(f"{name} is no JSON")
    return text


def _require_short(length: int) -> None:
    if length > MAX_REST_BYTES:
        raise JsonError(f"The body holds more than {MAX_REST_BYTES // 2**10} KiB besides the images.")
