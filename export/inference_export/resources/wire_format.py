"""Walking over a protobuf message without parsing it. Parsers take far more memory than a hostile file has bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_LENGTHS = {FIXED32: 4, FIXED64: 8}
_MOST_VARINT_BITS = 70


class Field(NamedTuple):
    """A field of a message.

    Attributes:
        number: The field's number.
        wire_type: ``VARINT``, ``FIXED64``, ``BYTES`` or ``FIXED32``.
        begin: Where its value begins.
        end: Where its value ends, which may be beyond the message.
    """

    number: int
    wire_type: int
    begin: int
    end: int


def walk_fields(content: bytes, begin: int, end: int) -> Iterator[Field]:
    """List the fields of the message in ``content[begin:end]``.

    Raises:
        ValueError: It is no message.
    """
    place = begin
    while place < end:
        tag, place = _read_varint(content, place)
        wire_type = tag & 7
        start = place
        if wire_type == VARINT:
            _, place = _read_varint(content, place)
        elif wire_type == BYTES:
            length, start = _read_varint(content, place)
            place = start + length
        elif wire_type in _FIXED_LENGTHS:
            place += _FIXED_LENGTHS[wire_type]
        else:
            raise ValueError("no protobuf message")
        yield Field(tag >> 3, wire_type, start, place)


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, _MOST_VARINT_BITS, 7):
        if place >= len(content):
            break
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint
            return value, place
    raise ValueError("no protobuf message")
