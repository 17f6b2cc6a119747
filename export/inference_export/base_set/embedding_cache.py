"""Embeddings that were computed once: an export of a grown base set, or one that was interrupted, computes the rest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

FOLDER_NAME = "classify-triton"
KEPT_FILES = 8  # one for each graph and preprocessing; the least recently used go
_LOCK_TIMEOUT_S = 60.0


class EmbeddingCache:
    """Embeddings by the content of their image files, of one graph with one preprocessing.

    Args:
        connection: To the cache's database; None: keeps nothing.
    """

    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self._connection = connection

    def get(self, keys: Sequence[bytes]) -> list[npt.NDArray[np.float32] | None]:
        """Look N image files up by ``content_key``: for each its embedding, float32 [D], or None."""
        if self._connection is None:
            return [None] * len(keys)
        with contextlib.suppress(sqlite3.Error):
            query = "SELECT embedding FROM embeddings WHERE content = ?"
            found = [self._connection.execute(query, (key,)).fetchone() for key in keys]
            return [None if row is None else np.frombuffer(row[0], np.float32) for row in found]
        return [None] * len(keys)

    def put(self, keys: Sequence[bytes], embeddings: npt.NDArray[np.float32]) -> None:
        """Keep the embeddings, float32 [N, D], of N image files; at once, so that an interruption loses none."""
        if self._connection is None:
            return
        rows = [(key, row.tobytes()) for key, row in zip(keys, embeddings, strict=True)]
        # Without room or a lock the export goes on, and the next one computes again.
        with contextlib.suppress(sqlite3.Error), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows)


def content_key(content: bytes) -> bytes:
    """Return what an image file is looked up by: SHA-256 of its bytes."""
    return hashlib.sha256(content).digest()


def default_cache_folder() -> Path:
    """Return where embeddings are kept: ``classify-triton`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / FOLDER_NAME


@contextlib.contextmanager
def open_cache(folder: Path, fingerprint: str) -> Iterator[EmbeddingCache]:
    """Open the cache of a graph and a preprocessing; one that can't be opened keeps nothing.

    Args:
        folder: Folder of all caches, made if it is not there.
        fingerprint: Of everything but the image that an embedding depends on, fit for a file name.
    """
    connection = _connect(folder, fingerprint)
    try:
        yield EmbeddingCache(connection)
    finally:
        if connection is not None:
            connection.close()


def _connect(folder: Path, fingerprint: str) -> sqlite3.Connection | None:
    file = folder / f"{fingerprint}.sqlite"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            connection = _open_database(file)
        except sqlite3.OperationalError:  # no room, or read-only
            raise
        except sqlite3.DatabaseError:  # damaged
            file.unlink()
            connection = _open_database(file)
        file.touch()
        _forget_old(folder)
    except (OSError, sqlite3.Error):
        return None
    return connection


def _open_database(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=_LOCK_TIMEOUT_S)
    try:
        connection.execute("CREATE TABLE IF NOT EXISTS embeddings (content BLOB PRIMARY KEY, embedding BLOB)")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _forget_old(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # another export does the same
        files = sorted(folder.glob("*.sqlite"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[KEPT_FILES:]:
            file.unlink()
