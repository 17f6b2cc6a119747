"""Moves that make a file grow: each names the structure that grows, and builds the file in any size."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .structure import CONTAINERS, Container, Piece

MOST_INFLATED = 2**20
_SHORT = (0, 1, 2, 4, 8, 16, 32, 64)  # bytes
_FIRST_BYTES_WITH_A_STREAM = 100


class Growth(NamedTuple):
    """A structure that can be made any size.

    Args:
        what: The format, the structure, and how it grows: equal for files that grow in the same way.
        build: Makes the file of about so many bytes.
    """

    what: str
    build: Callable[[int], bytes]


def grow(kind: str, data: bytes, chance: random.Random) -> Growth:
    """Choose a piece of a file, change it a little or not, and a way in which it grows.

    Args:
        kind: The format.
        data: An ordinary file.
        chance: Where the choices come from.
    """
    container = CONTAINERS[kind]
    pieces = container.read(data)
    place = chance.randrange(len(pieces))
    if container.kinds and chance.random() < 0.4:  # one that the file has not
        pieces.insert(place, Piece(chance.choice(container.kinds), chance.choice(pieces).data))
    changed = _change(pieces[place], container, chance)
    pieces[place] = changed
    move = chance.choice([_multiply, _multiply, _stretch, _split, _alternate])
    return move(f"{kind}: {_described(changed)}", container, pieces, place)


def _change(piece: Piece, container: Container, chance: random.Random) -> Piece:
    kind, data = piece
    way = chance.randrange(4)
    if way == 0:
        data = data[: chance.choice(_SHORT)]
    elif way == 1:
        data = _inflated(data)
    elif way == 2 and isinstance(kind, tuple):  # the same tag, of another type
        kind = (kind[0], chance.choice(container.kinds)[1])  # type: ignore[index]
        data = data.ljust(8, b"\x01")
    return Piece(kind, data)


def _inflated(data: bytes) -> bytes:
    """Make what is compressed in a piece as long as it may be."""
    for start in range(min(len(data), _FIRST_BYTES_WITH_A_STREAM)):
        try:
            content = zlib.decompress(data[start:])
        except zlib.error:
            continue
        return data[:start] + zlib.compress((content or b"x") * (MOST_INFLATED // max(len(content), 1)), 9)
    return data


def _multiply(what: str, container: Container, pieces: Sequence[Piece], place: int) -> Growth:
    """Write a piece many times."""
    return _repeated(f"{what}, again and again", container, pieces, place, [pieces[place]])


def _alternate(what: str, container: Container, pieces: Sequence[Piece], place: int) -> Growth:
    """Write a piece and the one before it many times."""
    return _repeated(f"{what}, and the one before it", container, pieces, place, [pieces[place - 1], pieces[place]])


def _repeated(
    what: str, container: Container, pieces: Sequence[Piece], place: int, repeated: Sequence[Piece]
) -> Growth:
    once = len(container.build([*pieces[:place], *repeated, *pieces[place:]])) - len(container.build(pieces))

    def build(size: int) -> bytes:
        return container.build([*pieces[:place], *[*repeated] * (size // max(once, 1) + 1), *pieces[place + 1 :]])

    return Growth(what, build)


def _stretch(what: str, container: Container, pieces: Sequence[Piece], place: int) -> Growth:
    """Repeat what a piece holds, within itself, and in as many pieces as it then takes."""
    kind, data = pieces[place]

    def build(size: int) -> bytes:
        content = (data or b"\0") * (size // max(len(data), 1) + 1)
        length = min(container.most_bytes, len(content)) // max(len(data), 1) * max(len(data), 1)
        parts = [Piece(kind, content[start : start + length]) for start in range(0, len(content), length)]
        return container.build([*pieces[:place], *parts, *pieces[place + 1 :]])

    return Growth(f"{what}, longer", build)


def _split(what: str, container: Container, pieces: Sequence[Piece], place: int) -> Growth:
    """Write a piece as one that holds its first byte, many that hold nothing, and one that holds the rest."""
    kind, data = pieces[place]
    empty = len(container.build([*pieces, Piece(kind, b"")])) - len(container.build(pieces))

    def build(size: int) -> bytes:
        parts = [Piece(kind, data[:1]), *[Piece(kind, b"")] * (size // max(empty, 1)), Piece(kind, data[1:])]
        return container.build([*pieces[:place], *parts, *pieces[place + 1 :]])

    return Growth(f"{what}, in empty parts", build)


def _described(piece: Piece) -> str:
    kind = piece.kind
    if isinstance(kind, tuple):
        return f"tag {kind[0]} of type {kind[1]}"
    if isinstance(kind, bytes):
        return f"{kind[:4]!r}"[2:-1]
    return f"marker {kind:02X}" if isinstance(kind, int) and kind >= 0 else "raw part"
