"""Ways to make a file grow. Each names the growing structure, and builds the file in any size."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Literal, NamedTuple

from tests.fuzz.structure import CONTAINERS, Container, Piece

MOST_INFLATED = 2**20
Build = Callable[[int], bytes]
_HEADER_BYTES = 64
_SHORT = (0, 1, 2, 4, 8, 16, 32, 64)  # bytes
_FIRST_BYTES_WITH_A_STREAM = 100


class Growth(NamedTuple):
    """A structure that can grow to any size.

    Args:
        kind: The format.
        structure: What grows.
        way: How it grows.
        build: Makes a file of about this many bytes.
    """

    kind: str
    structure: str
    way: str
    build: Callable[[int], bytes]

    def __str__(self) -> str:
        return f"{self.kind}, {self.structure} {self.way}"


def grow(kind: str, data: bytes, chance: random.Random) -> Growth:
    """Choose a piece of a file and the way in which it grows; perhaps change the piece a little.

    Args:
        kind: The format.
        data: An ordinary file.
        chance: Source of the random choices.
    """
    container = CONTAINERS[kind]
    pieces = container.read(data)
    place = chance.randrange(len(pieces))
    if container.kinds and chance.random() < 0.3:  # a tag that the file lacks
        pieces.insert(place, Piece(chance.choice(container.kinds), chance.choice(pieces).data))
    changed = _change(pieces[place], container, chance)
    pieces[place] = changed
    way = chance.choice(list(_WAYS))
    return Growth(kind, _described(changed), way, _WAYS[way](container, pieces, place, chance))


def _change(piece: Piece, container: Container, chance: random.Random) -> Piece:
    kind, data = piece
    inflated = _inflated(data)
    way = chance.randrange(3)
    if way == 0 and inflated:
        data = inflated
    elif way == 0:
        data = data[: chance.choice(_SHORT)]
    elif way == 1 and isinstance(kind, tuple):  # the same tag, of another type
        kind = (kind[0], chance.choice(container.kinds)[1])
        data = data.ljust(8, b"\x01")
    return Piece(kind, data)


def _inflated(data: bytes) -> bytes | None:
    """Make the compressed data in a piece as long as allowed; None if the piece has none."""
    for start in range(min(len(data), _FIRST_BYTES_WITH_A_STREAM)):
        try:
            content = zlib.decompress(data[start:])
        except zlib.error:
            continue
        return data[:start] + zlib.compress((content or b"x") * (MOST_INFLATED // max(len(content), 1)), 9)
    return None


def _multiply(container: Container, pieces: list[Piece], place: int, _: random.Random) -> Build:
    return _repeated(container, pieces, place, [pieces[place]])


def _alternate(container: Container, pieces: list[Piece], place: int, _: random.Random) -> Build:
    return _repeated(container, pieces, place, [pieces[place - 1], pieces[place]])


def _repeated(container: Container, pieces: list[Piece], place: int, repeated: list[Piece]) -> Build:
    before, after = pieces[:place], pieces[place + 1 :]
    once = len(container.build([*before, *repeated, *after])) - len(container.build([*before, *after]))
    return lambda size: container.build([*before, *repeated * (size // max(once, 1) + 1), *after])


def _stretch(container: Container, pieces: list[Piece], place: int, _: random.Random) -> Build:
    kind, data = pieces[place]
    data = data or b"\0"
    length = max(1, container.most_bytes // len(data)) * len(data)

    def build(size: int) -> bytes:
        content = data * (size // len(data) + 1)
        parts = [Piece(kind, content[start : start + length]) for start in range(0, len(content), length)]
        return container.build([*pieces[:place], *parts, *pieces[place + 1 :]])

    return build


def _split(container: Container, pieces: list[Piece], place: int, _: random.Random) -> Build:
    kind, data = pieces[place]
    first, empty, rest = Piece(kind, data[:1]), Piece(kind, b""), Piece(kind, data[1:])
    return _repeated(container, [*pieces[:place], first, empty, rest, *pieces[place + 1 :]], place + 1, [empty])


def _enlarge(container: Container, pieces: list[Piece], place: int, chance: random.Random) -> Build:
    """Multiply a number of two or four bytes, in either byte order."""
    kind, data = pieces[place]
    order: Literal["little", "big"] = chance.choice(("little", "big"))
    length = chance.choice((2, 4))
    numbers = {start: int.from_bytes(data[start : start + length], order) for start in range(len(data) - length + 1)}
    counts = [start for start, number in list(numbers.items())[:_HEADER_BYTES] if 0 < number < 2**12]
    if counts:
        start = chance.choice(counts)
        number = min(numbers[start] << chance.randrange(1, 20), 2 ** (8 * length) - 1)
        data = data[:start] + number.to_bytes(length, order) + data[start + length :]
    enlarged = container.build([*pieces[:place], Piece(kind, data), *pieces[place + 1 :]])
    return lambda _: enlarged


_WAYS = {
    "written again and again": _multiply,
    "written again and again with the one before it": _alternate,
    "longer": _stretch,
    "in many empty parts": _split,
    "with a larger number": _enlarge,
}


def _described(piece: Piece) -> str:
    kind = piece.kind
    if isinstance(kind, tuple):
        return f"tag {kind[0]} of type {kind[1]}"
    if isinstance(kind, bytes):
        return kind[:4].decode("latin-1")
    return f"marker {kind:02X}" if isinstance(kind, int) and kind >= 0 else "raw part"
