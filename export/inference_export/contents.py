"""What a version in a model repository holds, read from its files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .base_analysis import Index
from .configs import CONFIG_FILE, ENSEMBLE, pinned_version
from .errors import RepositoryError
from .inspection import Export, read_export
from .provenance import PROVENANCE_FILE
from .repository import ARTEFACTS, complete_versions
from .scoring import Float32
from .template import load_served_module

_base_files = load_served_module("cluster_head", "base_set")


@dataclass(frozen=True, kw_only=True)
class StoredBase:
    """The base set of a version.

    Args:
        embeddings: L2-normalized, float32 [B, D], mapped from the file; those of one class side by side.
        class_starts: First row of each class, ascending integers [C] from 0.
        files: The served reader, which names base images.
    """

    embeddings: Float32
    class_starts: Index
    files: Any

    def name(self, row: int) -> str:
        """Return ``class/file name`` of a base image."""
        return str(self.files.names(np.array([row]))[0])

    @property
    def class_sizes(self) -> list[int]:
        """Number of base images of each class."""
        return [int(size) for size in np.diff([*self.class_starts, len(self.embeddings)])]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A version, and what all versions of its repository share.

    Args:
        repository: The folder.
        export: The version's settings and provenance.
        pinned: The version that the ensemble answers with.
        versions: All complete versions, ascending.
        image_size: Side S in pixels.
        embedding_size: Length D of an embedding.
        max_batch_size: Most images in a request.
        base: The base set; None in classification mode.
    """

    repository: Path
    export: Export
    pinned: int
    versions: list[int]
    image_size: int
    embedding_size: int
    max_batch_size: int
    base: StoredBase | None


def read_contents(repository: Path, version: int | None = None) -> Contents:
    """Read what a repository holds, and check that it belongs together.

    Args:
        repository: The model repository.
        version: The version to look at; None: the one that the ensemble answers with.

    Raises:
        RepositoryError: There is no export, or no such version, or its files are damaged or of different exports.
    """
    pinned = _pinned(repository)
    versions = complete_versions(repository)
    wanted = pinned if version is None else version
    if wanted not in versions:
        _refuse_version(repository, wanted, versions)
    export = read_export(repository, wanted)
    if export is None:  # removed meanwhile
        raise RepositoryError(f"{repository} holds no export any more. Look again.", repository)
    config = _read_config(repository, "classifier")
    size, length, batch = (
        _number(config, pattern, repository)
        for pattern in (r'"PIXELS".*dims: \[ (\d+),', r'"EMBEDDING".*dims: \[ (\d+) \]', r"max_batch_size: (\d+)")
    )
    return Contents(
        repository=repository,
        export=export,
        pinned=pinned,
        versions=versions,
        image_size=size,
        embedding_size=length,
        max_batch_size=batch,
        base=_read_base(repository, export, length) if export.settings.get("mode") == "clustering" else None,
    )


def _pinned(repository: Path) -> int:
    file = repository / ENSEMBLE / CONFIG_FILE
    if not file.is_file():
        raise RepositoryError(
            f"{repository} holds no export: there is no {ENSEMBLE}/{CONFIG_FILE}. Name a folder that "
            f"export-repository has written.",
            repository,
        )
    pinned = pinned_version(_read_config(repository, ENSEMBLE))
    if pinned is None:
        raise RepositoryError(f"{file} does not name one version of every model. Run the export again.", file)
    return pinned


def _refuse_version(repository: Path, version: int, versions: list[int]) -> None:
    there = f"Complete are: {', '.join(map(str, versions))}." if versions else "No version is complete."
    missing = [name.format(version) for name in ARTEFACTS if not (repository / name.format(version)).is_file()]
    if not versions and not (repository / "cluster_head" / str(version) / PROVENANCE_FILE).exists():
        raise RepositoryError(
            f"{repository} holds no export yet. Name a folder that export-repository has written.", repository
        )
    if len(missing) == len(ARTEFACTS):
        raise RepositoryError(f"{repository} holds no version {version}. {there}", repository)
    raise RepositoryError(
        f"{repository}: version {version} is incomplete, {missing[0]} is missing. {there} Run the export again.",
        repository,
    )


def _read_config(repository: Path, model: str) -> str:
    file = repository / model / CONFIG_FILE
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{file} can't be read ({error}). Run the export again.", file) from error


def _number(config: str, pattern: str, repository: Path) -> int:
    found = re.search(pattern, config)
    if found is None:
        file = repository / "classifier" / CONFIG_FILE
        raise RepositoryError(f"{file} is none that an export wrote. Run the export again.", file)
    return int(found[1])


def _read_base(repository: Path, export: Export, embedding_size: int) -> StoredBase:
    folder = repository / "cluster_head" / str(export.version)
    try:
        base = _base_files.load_base_set(folder)
        names = (folder / _base_files.NAMES_FILE).read_bytes().count(b"\n")
        classes = len(export.settings["classes"])
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise RepositoryError(f"{folder}: its base set is damaged ({error!r}). Export again.", folder) from error
    count = len(base.embeddings)
    sizes = np.diff([*base.class_starts, count])
    problem = None
    if base.embeddings.dtype != np.float32 or base.embeddings.shape != (count, embedding_size):
        problem = f"embeddings of {base.embeddings.dtype} {list(base.embeddings.shape)}"
    elif names != count or len(sizes) != classes or (sizes < 1).any():
        problem = f"{count} embeddings, {names} names, {len(sizes)} class sizes of {classes} classes"
    elif not np.isfinite(base.embeddings).all():
        problem = "embeddings that are not finite"
    if problem is not None:
        raise RepositoryError(f"{folder}: its base set is damaged, {problem}. Run the export again.", folder)
    return StoredBase(embeddings=base.embeddings, class_starts=base.class_starts, files=base)
