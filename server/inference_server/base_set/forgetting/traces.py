"""What an image leaves behind in files: its name, its embeddings and its content hash; and the search for them."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from inference_export.template import load_served_module

NAME, EMBEDDING, CONTENT_HASH = "name", "embedding", "content hash"
_CHUNK_BYTES = 2**24
_NAMES_FILE = load_served_module("cluster_head", "base_set").NAMES_FILE
_LENGTH_BYTES = 4  # Triton writes the length of a text before it
# What may stand before and after a name in a file of unknown form. A space may be part of a name.
_DELIMITERS = frozenset({*range(0x20), 0x7F, *b"\"'`/\\,:;=<>|[]{}()"})
_LINE_ENDS = frozenset(b"\n")


@dataclass(frozen=True, kw_only=True)
class Traces:
    """What identifies images in files.

    Attributes:
        names: ``class/file name`` of each image.
        embeddings: The bytes of each embedding, float32 [D], L2-normalized or as the graph computes it. None is zero.
        hashes: SHA-256 of each image file.
    """

    names: Collection[str]
    embeddings: Collection[bytes] = ()
    hashes: Collection[bytes] = ()

    def find_in(self, file: Path, *, bare_names: bool = False) -> list[str]:
        """Search a file.

        Args:
            file: The file.
            bare_names: Whether the file name alone, without its class, counts as well.

        Returns:
            Which of ``NAME``, ``EMBEDDING`` and ``CONTENT_HASH`` the file holds; empty if it no longer exists.

        Raises:
            OSError: The file can't be read.
        """
        names = {*self.names, *(name.partition("/")[2] for name in self.names if bare_names)}
        delimiters = _LINE_ENDS if file.name == _NAMES_FILE else _DELIMITERS
        delimited = {spelling for name in names for spelling in _spellings(name)}
        counted = {len(name.encode()).to_bytes(_LENGTH_BYTES, "little") + name.encode() for name in names}
        hashes = {form for value in self.hashes for form in (value, *_hexadecimal(value))}
        wanted = {NAME: counted, EMBEDDING: set(self.embeddings), CONTENT_HASH: hashes}
        longest = max((len(each) for each in (*delimited, *counted, *self.embeddings, *hashes)), default=0)
        found: set[str] = set()
        for chunk, is_last in _chunks(file, overlap=longest + 2):
            for kind, needles in wanted.items():
                if kind not in found and any(needle in chunk for needle in needles):
                    found.add(kind)
            if NAME not in found and any(_holds(chunk, name, delimiters, is_last=is_last) for name in delimited):
                found.add(NAME)
        return [kind for kind in wanted if kind in found]


def _spellings(name: str) -> set[bytes]:
    """Return a name in UTF-8, and as JSON in ASCII spells it."""
    return {name.encode(), json.dumps(name)[1:-1].encode()}


def _hexadecimal(value: bytes) -> tuple[bytes, bytes]:
    return value.hex().encode(), value.hex().upper().encode()


def _holds(chunk: bytes, name: bytes, delimiters: frozenset[int], *, is_last: bool) -> bool:
    """Tell whether a name stands in a chunk as a whole; a chunk's first byte stands before what is searched."""
    start = chunk.find(name)
    while start >= 0:
        end = start + len(name)
        ends = chunk[end] in delimiters if end < len(chunk) else is_last
        if ends and start > 0 and chunk[start - 1] in delimiters:
            return True
        start = chunk.find(name, start + 1)
    return False


def _chunks(file: Path, overlap: int) -> Iterator[tuple[bytes, bool]]:
    """Read a file in overlapping chunks, each with whether it is the last; a line feed stands before the first."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "rb") as opened:
        kept = b"\n"
        while True:
            read = opened.read(_CHUNK_BYTES)
            chunk = kept + (read or b"")
            yield chunk, not read
            if not read:
                return
            kept = chunk[-overlap:]
