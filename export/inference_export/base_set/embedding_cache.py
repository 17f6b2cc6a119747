"""A cache of embeddings, so that an export of a grown base set computes only the new ones."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

SUFFIX = ".sqlite"  # of a database of embeddings
FOLDER_NAME = "classify-triton"
KEPT_FILES = 8  # of each kind, such as one for each graph and way to decode; those unused for longest are removed
_LOCK_TIMEOUT_S = 60.0
_FLOAT_BYTES, _HASH_BYTES = 4, 32
_OWN_FILE = re.compile(r"\.?[0-9a-f]{32}-[0-9a-f]{64}\.(sqlite(-journal|-wal|-shm)?|npy(\.[0-9]+)?)")
_SQLITE_SUFFIXES = ("-journal", "-wal", "-shm")
# SQLite's names for a database that is damaged or encrypted, is no database, or lacks the table.
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR")


class EmbeddingCache:
    """Embeddings of one graph and one way to decode, by the content of the image files.

    Args:
        connection: Connection to the cache's database; None: the cache stays empty.
    """

    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self._connection = connection

    def get(self, keys: Sequence[bytes]) -> list[npt.NDArray[np.float32] | None]:
        """Look up embeddings, float32 [D], by the SHA-256 of image files; None: not cached."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                query = "SELECT embedding FROM embeddings WHERE content = ?"
                rows = [self._connection.execute(query, (key,)).fetchone() for key in keys]
                return [None if row is None else _embedding(row[0]) for row in rows]
        return [None] * len(keys)

    def put(self, keys: Sequence[bytes], embeddings: npt.NDArray[np.float32]) -> None:
        """Keep the embeddings, float32 [N, D], of N image files."""
        if self._connection is None:
            return
        rows = [(key, row.tobytes()) for key, row in zip(keys, embeddings, strict=True)]
        # With a full disk or a lock that is not free, the next export computes these embeddings again.
        with contextlib.suppress(sqlite3.Error), self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", rows)


def _embedding(stored: object) -> npt.NDArray[np.float32] | None:
    if not isinstance(stored, bytes) or len(stored) % _FLOAT_BYTES:
        return None
    embedding = np.frombuffer(stored, np.float32)
    return embedding if np.isfinite(embedding).all() else None


def default_cache_folder() -> Path:
    """Return the folder of all caches: ``classify-triton`` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / FOLDER_NAME


@contextlib.contextmanager
def open_cache(folder: Path, decoding: str, graph: str) -> Iterator[EmbeddingCache]:
    """Open the cache of a way to decode and a graph. If that fails, the cache stays empty.

    Args:
        folder: Folder of all caches, made if it does not exist.
        decoding: Name of the way to decode (``ImageFiles.decoding``).
        graph: SHA-256 of the graph, in hexadecimal.
    """
    connection = _connect(folder, f"{decoding}-{graph}.sqlite")
    try:
        yield EmbeddingCache(connection)
    finally:
        if connection is not None:
            connection.close()


class EmbeddedContents:
    """The SHA-256 of each image file that any graph has embedded, and which therefore decodes.

    Args:
        connections: Connections to the databases of the graphs.
    """

    def __init__(self, connections: Sequence[sqlite3.Connection]) -> None:
        self._connections = connections

    def __contains__(self, key: object) -> bool:
        """Tell whether a graph has embedded the image file of this SHA-256."""
        return any(_holds(connection, key) for connection in self._connections)


@contextlib.contextmanager
def open_embedded(folder: Path, decoding: str) -> Iterator[EmbeddedContents]:
    """Open the caches of a way to decode, whatever the graph. Those that can't be read count as empty.

    Args:
        folder: Folder of all caches.
        decoding: Name of the way to decode (``ImageFiles.decoding``).
    """
    with contextlib.ExitStack() as stack:
        connections = []
        for file in folder.glob(f"{decoding}-*.sqlite"):
            with contextlib.suppress(sqlite3.Error):
                connections.append(stack.enter_context(contextlib.closing(sqlite3.connect(file))))
        yield EmbeddedContents(connections)


def _holds(connection: sqlite3.Connection, key: object) -> bool:
    with contextlib.suppress(sqlite3.Error):
        return connection.execute("SELECT 1 FROM embeddings WHERE content = ?", (key,)).fetchone() is not None
    return False


def remove_oldest(folder: Path, suffix: str) -> None:
    """Keep the ``KEPT_FILES`` files of a kind that were used last."""
    with contextlib.suppress(FileNotFoundError):  # another command removes them too
        files = sorted(folder.glob(f"*{suffix}"), key=lambda file: file.stat().st_mtime, reverse=True)
        for file in files[KEPT_FILES:]:
            file.unlink()


def list_cache_files(folder: Path) -> list[Path]:
    """List the files of all caches in a folder, which may hold other files as well."""
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if _OWN_FILE.fullmatch(file.name) and file.is_file())


def look_up_contents(folder: Path, embeddings: Collection[bytes]) -> set[bytes]:
    """Return the SHA-256 of each image file for which one of these embeddings is cached.

    Args:
        folder: Folder of all caches.
        embeddings: The bytes of each embedding.

    Raises:
        OSError: A cache stays locked, or can't be read.
    """
    contents = _look_up(folder, "SELECT content FROM embeddings WHERE embedding = ?", embeddings)
    return {content for content in contents if len(content) == _HASH_BYTES}


def look_up_everywhere(folder: Path, keys: Collection[bytes]) -> set[bytes]:
    """Return the bytes of every embedding, of any graph, that is cached for image files.

    Args:
        folder: Folder of all caches.
        keys: SHA-256 of each image file.

    Raises:
        OSError: A cache stays locked, or can't be read.
    """
    return _look_up(folder, "SELECT embedding FROM embeddings WHERE content = ?", keys)


def remove_embeddings(file: Path, keys: Collection[bytes], embeddings: Collection[bytes], *, rewrite: bool) -> bool:
    """Remove embeddings from a cache so that no byte of its files holds them. A damaged cache is removed.

    Args:
        file: The cache's database.
        keys: SHA-256 of each image file.
        embeddings: The bytes of each embedding, which go whatever image file they are of.
        rewrite: Write the database anew even if it has none of them, because free pages may still hold some.

    Returns:
        Whether the cache was written anew or removed.

    Raises:
        OSError: The cache stays locked, or can't be written.
    """
    try:
        with (
            _explained(file),
            contextlib.closing(sqlite3.connect(file, timeout=_LOCK_TIMEOUT_S, isolation_level=None)) as connection,
        ):
            connection.execute("PRAGMA secure_delete = ON")
            before = connection.total_changes
            connection.executemany("DELETE FROM embeddings WHERE content = ?", [(key,) for key in keys])
            connection.executemany("DELETE FROM embeddings WHERE embedding = ?", [(each,) for each in embeddings])
            if not rewrite and connection.total_changes == before:
                return False
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except _DamagedError:
        remove_cache(file)
    return True


def remove_cache(file: Path) -> None:
    """Remove a cache with the files that SQLite keeps beside it; ``file`` may be any of them."""
    name = file.name
    for suffix in _SQLITE_SUFFIXES:
        name = name.removesuffix(suffix)
    for suffix in ("", *_SQLITE_SUFFIXES):
        file.with_name(f"{name}{suffix}").unlink(missing_ok=True)


def _look_up(folder: Path, query: str, values: Collection[bytes]) -> set[bytes]:
    found: set[bytes] = set()
    for file in list_cache_files(folder):
        if file.suffix != SUFFIX:
            continue
        with (
            contextlib.suppress(_DamagedError),
            _explained(file),
            contextlib.closing(sqlite3.connect(file, timeout=_LOCK_TIMEOUT_S)) as connection,
        ):
            for value in values:
                found.update(row for (row,) in connection.execute(query, (value,)) if isinstance(row, bytes))
    return found


class _DamagedError(Exception):
    """A database is damaged, or is no cache."""


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    """Turn SQLite's errors into ``_DamagedError`` and ``OSError``."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "").startswith(_DAMAGED):
            raise _DamagedError from error
        raise OSError(errno.EIO, f"the cache can't be changed now ({error})", str(file)) from error


def _connect(folder: Path, name: str) -> sqlite3.Connection | None:
    file = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            connection = _open_database(file)
        except sqlite3.OperationalError:  # a full disk, or a read-only folder
            raise
        except sqlite3.DatabaseError:  # damaged
            remove_cache(file)
            connection = _open_database(file)
        file.touch()
        remove_oldest(folder, SUFFIX)
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
