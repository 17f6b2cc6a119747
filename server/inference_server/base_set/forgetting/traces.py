"""What an image leaves behind in files: its name, its embeddings and its content hash; and the search for them."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from inference_export.template import load_served_module
from inference_server.base_set.forgetting.needles import Needles

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

    def find_in(self, file: Path) -> list[str]:
        """Search a file.

        Args:
            file: The file.

        Returns:
            Which of ``NAME``, ``EMBEDDING`` and ``CONTENT_HASH`` the file holds; empty if it no longer exists.

        Raises:
            OSError: The file can't be read.
        """
        delimiters = _LINE_ENDS if file.name == _NAMES_FILE else _DELIMITERS
        hashes = {form for value in self.hashes for form in (value, *_hexadecimal(value))}
        whole_names = {spelling for name in self.names for spelling in _spellings(name)}
        kind_of = dict.fromkeys(self.embeddings, EMBEDDING) | dict.fromkeys(hashes, CONTENT_HASH)
        kind_of |= dict.fromkeys(whole_names | {_with_length(name.encode()) for name in self.names}, NAME)
        found: set[str] = set()
        needles = Needles(kind_of)
        for chunk, is_last in _chunks(file, overlap=needles.longest + 2):
            for start, needle in needles.find_in(chunk):
                end = start + len(needle)
                if needle not in whole_names or (
                    chunk[start - 1] in delimiters and (chunk[end] in delimiters if end < len(chunk) else is_last)
                ):
                    found.add(kind_of[needle])
        return [kind for kind in (NAME, EMBEDDING, CONTENT_HASH) if kind in found]


def _spellings(name: str) -> set[bytes]:
    """Return a name in UTF-8, and as JSON in ASCII spells it."""
    return {name.encode(), json.dumps(name)[1:-1].encode()}


def _hexadecimal(value: bytes) -> tuple[bytes, bytes]:
    return value.hex().encode(), value.hex().upper().encode()


def _with_length(name: bytes) -> bytes:
    return len(name).to_bytes(_LENGTH_BYTES, "little") + name


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
