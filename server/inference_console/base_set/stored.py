"""The base set as the repository holds it: read once for each version, away from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from inference_export.base_set.analysis import MAX_QUERIES, Comparison, compare_rows
from inference_export.errors import RepositoryError
from inference_export.repository.contents import StoredBase, read_contents
from inference_export.repository.versions import PROVENANCE_FILE, complete_versions, exported_version
from inference_server.base_set.history import VersionChange, read_history
from inference_server.base_set.report import list_json

DOUBTS_WAIT_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """Why a base image may be a mistake.

    Attributes:
        kind: ``closer to another class``, ``same as in another class`` or ``same as in its class``: nearly the same
            image lies there.
        other: The other class or image.
        similarity: Similarity with it, -1 to 1.
        own_similarity: Highest similarity with another image of its own class, -1 to 1, if it is closer to another
            class; otherwise None.
    """

    kind: str
    other: str
    similarity: float
    own_similarity: float | None = None


CLOSER, CONFLICT, TWIN = "closer to another class", "same as in another class", "same as in its class"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """The base set of the version that the repository answers with.

    Attributes:
        values: What ``base-set list --json`` prints, without the repository's path.
        history: What each kept version changed, newest first.
        has_older: Whether there is a version to go back to.
        class_sizes: Class name to number of images.
    """

    values: dict[str, Any]
    history: list[VersionChange]
    has_older: bool
    class_sizes: dict[str, int]
    _images: list[str] = field(repr=False)

    @property
    def version(self) -> int:
        """The version's number."""
        return int(self.values["version"])

    @property
    def unknown_label(self) -> str | None:
        """The label of a query that nothing matches; None: there is none."""
        label: str | None = self.values["unknown_label"]
        return label

    @cached_property
    def classes(self) -> dict[str, list[str]]:
        """Class name to the file names of its images, sorted."""
        found: dict[str, list[str]] = {name: [] for name in self.class_sizes}
        for image in self._images:
            class_name, _, file_name = image.partition("/")
            found[class_name].append(file_name)
        return found

    def __contains__(self, image: object) -> bool:
        """Tell whether the base set holds an image of a ``class/file name``."""
        return image in self._names

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self._images)


class NoBaseSetError(Exception):
    """There is no base set to show; the message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class _Read:
    key: object
    stored: Stored
    doubts: asyncio.Task[dict[str, list[Doubt]]]


class StoredReader:
    """Reads the base set that a repository answers with, again only when it has changed.

    Args:
        repository: The model repository.
    """

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._lock = asyncio.Lock()
        self._read: _Read | None = None
        self._closing = threading.Event()

    async def read(self) -> Stored:
        """Return the base set.

        Raises:
            NoBaseSetError: The repository holds none, or can't be read.
        """
        return (await self._current()).stored

    async def doubts(self, wait_s: float = DOUBTS_WAIT_S) -> dict[str, list[Doubt]] | None:
        """Return why images may be mistakes, by ``class/file name``, the worst first; None: still being looked for.

        Raises:
            NoBaseSetError: The repository holds no base set, or can't be read.
        """
        task = (await self._current()).doubts
        try:
            return await asyncio.wait_for(asyncio.shield(task), wait_s)
        except TimeoutError:
            return None

    def close(self) -> None:
        """Stop looking for doubtful images."""
        self._closing.set()

    def clear(self) -> None:
        """Keep nothing that was read."""
        self._read = None

    async def _current(self) -> _Read:
        async with self._lock:
            try:
                key = await asyncio.to_thread(self._key)
                if self._read is None or self._read.key != key:
                    stored, base = await asyncio.to_thread(self._load)
                    doubts = asyncio.create_task(
                        asyncio.to_thread(_find_doubts, base, list(stored.class_sizes), self._closing)
                    )
                    self._read = _Read(key=key, stored=stored, doubts=doubts)
            except OSError as error:
                raise NoBaseSetError(f"The model repository can't be read: {error.strerror or error}.") from error
            return self._read

    def _key(self) -> object:
        """Return a value that changes with what the repository answers with, and with the versions that it keeps."""
        version = exported_version(self._repository)
        if version is None:
            raise NoBaseSetError(
                f"There is no export in {self._repository}. Start the console with --model_repository, and the folder "
                f"that the server serves."
            )
        status = (self._repository / "cluster_head" / str(version.number) / PROVENANCE_FILE).stat()
        return version, status.st_ino, status.st_mtime_ns, tuple(complete_versions(self._repository))

    def _load(self) -> tuple[Stored, StoredBase]:
        try:
            contents = read_contents(self._repository)
        except RepositoryError as error:
            raise NoBaseSetError(str(error)) from error
        if contents.base is None:
            raise NoBaseSetError(
                "The server answers in classification mode: its network knows the classes by itself, and there are no "
                "reference images to show. Export with -data and --mode clustering for a base set."
            )
        history = read_history(contents)
        values = list_json(contents, contents.base, history)
        del values["repository"]
        stored = Stored(
            values=values,
            history=history,
            has_older=any(number < contents.pinned for number in contents.versions),
            class_sizes=values["base_images"],
            _images=values["images"],
        )
        return stored, contents.base


class _ClosingError(Exception):
    """The console ends."""


def _find_doubts(base: StoredBase, classes: list[str], closing: threading.Event) -> dict[str, list[Doubt]]:
    """Compare each base image with all others; of more than ``MAX_QUERIES``, evenly spaced ones."""

    def go_on(_count: int) -> None:
        if closing.is_set():
            raise _ClosingError

    count = len(base.embeddings)
    rows = np.unique(np.linspace(0, count - 1, min(count, MAX_QUERIES)).round().astype(np.intp))
    found: dict[str, list[Doubt]] = {}
    with contextlib.suppress(_ClosingError, OSError):  # or the version was removed meanwhile
        compared = compare_rows(base.embeddings, base.class_starts, rows, advance=go_on)
        for image, doubt in _doubts(base, classes, compared):
            found.setdefault(image, []).append(doubt)
    return found


def _doubts(base: StoredBase, classes: list[str], compared: Comparison) -> Iterator[tuple[str, Doubt]]:
    for position in compared.misplaced:
        yield (
            base.name(int(compared.rows[position])),
            Doubt(
                kind=CLOSER,
                other=classes[compared.other_class[position]],
                similarity=float(compared.other[position]),
                own_similarity=float(compared.own[position]),
            ),
        )
    for kind, duplicates in ((CONFLICT, compared.conflicts), (TWIN, compared.same_class)):
        for one, other, similarity in duplicates.pairs:
            names = base.name(one), base.name(other)
            for image, twin in (names, names[::-1]):
                yield image, Doubt(kind=kind, other=twin, similarity=similarity)
