"""A search for many byte strings at once, which takes about as long as one for a single string."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

_PAIRS = 2**16
_PREFIX_BYTES = 4


class Needles:
    """Byte strings to look for.

    Args:
        needles: The byte strings, none of them empty.

    Attributes:
        longest: Length of the longest one; 0 without any.

    >>> sorted(Needles([b"banana", b"nan", b"an"]).find_in(b"banana"))
    [(0, b'banana'), (1, b'an'), (2, b'nan'), (3, b'an')]
    """

    def __init__(self, needles: Collection[bytes]) -> None:
        self._short = {needle for needle in needles if len(needle) < _PREFIX_BYTES}
        self._long = set(needles) - self._short
        self._lengths = sorted({len(needle) for needle in self._long})
        # Whether a pair of bytes stands at the start of any needle, and whether one stands right behind it.
        self._first, self._second = (np.zeros(_PAIRS, np.bool_) for _ in range(2))
        for needle in self._long:
            first, second = np.frombuffer(needle[:_PREFIX_BYTES], "<u2")
            self._first[first] = self._second[second] = True
        self.longest = max(map(len, needles), default=0)

    def find_in(self, content: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield the position of each occurrence, and what stands there."""
        for needle in self._short:
            start = content.find(needle)
            while start >= 0:
                yield start, needle
                start = content.find(needle, start + 1)
        if not self._long or len(content) < _PREFIX_BYTES:
            return
        read = np.frombuffer(content, np.uint8).astype(np.uint16)
        pairs = read[:-1] | (read[1:] << 8)  # at every position, not only at even ones
        for start in np.flatnonzero(self._first[pairs[:-2]] & self._second[pairs[2:]]).tolist():
            for length in self._lengths:
                piece = content[start : start + length]
                if piece in self._long:
                    yield start, piece
