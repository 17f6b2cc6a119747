"""The contents of a version in a model repository."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap

from inference_export.base_set.scoring import Float32, Index
from inference_export.errors import RepositoryError
from inference_export.network.preprocessing import Preprocessing
from inference_export.regular_files import open_regular_file
from inference_export.repository.configs import (
    CONFIG_FILE,
    ENSEMBLE,
    HEAD,
    MAX_CONFIG_BYTES,
    RepositoryShape,
    Version,
    pinned_version,
    read_shape,
)
from inference_export.repository.reading import Export, read_export
from inference_export.repository.version_files import (
    MAX_NAMES_BYTES,
    check_class_sizes,
    damaged,
    read_exported_preprocessing,
    read_text,
)
from inference_export.repository.versions import PROVENANCE_FILE, complete_versions, find_version, missing_files
from inference_export.template import load_served_module

_BLOCK_ROWS = 8192
_NORM_TOLERANCE = 1e-3
_MAX_EMBEDDINGS_BYTES = 2**36
_NUMPY_1 = b"\x93NUMPY\1\0"
_base_files = load_served_module("cluster_head", "base_set")


@dataclass(frozen=True, kw_only=True)
class StoredBase:
    """The base set of a version.

    Attributes:
        embeddings: Base embeddings, L2-normalized or zero, float32 [B, D], one class after another. Mapped from a file.
        class_starts: First row of each class, ascending integers [C] from 0.
        files: The server's own reader of the base set, which names base images.
        names_file: The names of all base images, each followed by a line feed.
    """

    embeddings: Float32
    class_starts: Index
    files: Any
    names_file: Path

    def name(self, row: int) -> str:
        """Return ``class/file name`` of a base image."""
        return str(self.files.names(np.array([row]))[0])

    def names(self) -> list[str]:
        """Return ``class/file name`` of every base image."""
        return read_text(self.names_file, MAX_NAMES_BYTES).split("\n")[:-1]

    @property
    def class_sizes(self) -> list[int]:
        """Number of base images of each class."""
        return [int(size) for size in np.diff([*self.class_starts, len(self.embeddings)])]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A version, and the values that all versions of its repository share.

    Attributes:
        repository: The model repository.
        export: The version's settings and provenance.
        pinned: Number of the version that the ensemble answers with.
        versions: Numbers of all complete versions, ascending.
        shape: The shared values.
        preprocessing: What happens to an image before the network; None: an earlier export did not say.
        base: The base set; None in classification mode.
    """

    repository: Path
    export: Export
    pinned: int
    versions: list[int]
    shape: RepositoryShape
    preprocessing: Preprocessing | None
    base: StoredBase | None


def read_contents(repository: Path, version: int | None = None) -> Contents:
    """Read a version, and check that its files belong together.

    Args:
        repository: The model repository.
        version: The version; None: the one that the ensemble answers with.

    Raises:
        RepositoryError: There is no export or no such version, or files are damaged or come from different exports.
    """
    pinned = _pinned(repository)
    versions = complete_versions(repository)
    wanted = pinned if version is None else find_version(repository, version)
    if wanted not in versions:
        _refuse_version(repository, wanted, versions)
    export = read_export(repository, wanted)
    if export is None:  # removed meanwhile
        raise RepositoryError(f"{repository} holds no export any more. Run the command again.", repository)
    shape = _read_shape(repository / "classifier" / CONFIG_FILE)
    return Contents(
        repository=repository,
        export=export,
        pinned=pinned.number,
        versions=[version.number for version in versions],
        shape=shape,
        preprocessing=read_exported_preprocessing(repository / "preprocess" / export.version.folder("preprocess")),
        base=(
            read_base(
                repository / HEAD / export.version.folder(HEAD), len(export.settings.classes), shape.embedding_size
            )
            if export.settings.mode == "clustering"
            else None
        ),
    )


def _pinned(repository: Path) -> Version:
    file = repository / ENSEMBLE / CONFIG_FILE
    if not file.is_file():
        raise RepositoryError(
            f"{repository} holds no export: {ENSEMBLE}/{CONFIG_FILE} is missing. Name a folder that "
            f"export-repository has written.",
            repository,
        )
    pinned = pinned_version(read_text(file, MAX_CONFIG_BYTES))
    if pinned is None:
        raise RepositoryError(f"{file} does not name one version of every model. Run the export again.", file)
    return pinned


def _refuse_version(repository: Path, version: Version, versions: list[Version]) -> None:
    numbers = ", ".join(str(version.number) for version in versions)
    complete = f"Complete are: {numbers}." if versions else "No version is complete."
    head = repository / HEAD / version.folder(HEAD)
    if not versions and not (head / PROVENANCE_FILE).exists():
        raise RepositoryError(
            f"{repository} holds no export yet. Name a folder that export-repository has written.", repository
        )
    if not head.is_dir():
        raise RepositoryError(f"{repository} holds no version {version.number}. {complete}", repository)
    missing = missing_files(repository, version)[0]
    raise RepositoryError(
        f"{repository}: version {version.number} is incomplete, {missing} is missing. {complete} Run the export again.",
        repository,
    )


def _read_shape(file: Path) -> RepositoryShape:
    try:
        return read_shape(read_text(file, MAX_CONFIG_BYTES))
    except ValueError as error:
        raise RepositoryError(f"{file} was not written by an export: {error}. Run the export again.", file) from error


def read_base(folder: Path, classes: int, embedding_size: int) -> StoredBase:
    """Read a base set, and check that its files belong together.

    Args:
        folder: The version folder of ``cluster_head``.
        classes: Number of classes.
        embedding_size: Length D of an embedding.

    Raises:
        RepositoryError: A file is damaged.
    """
    embeddings, names = folder / _base_files.EMBEDDINGS_FILE, folder / _base_files.NAMES_FILE
    count = _count_embeddings(embeddings, embedding_size)
    check_class_sizes(folder / _base_files.CLASS_SIZES_FILE, classes, count)
    text = read_text(names, MAX_NAMES_BYTES)
    lines = text.count("\n")
    if lines != count or not text.endswith("\n"):
        raise damaged(names, f"it holds {lines} names of {count} embeddings")
    base = _base_files.load_base_set(folder)
    return StoredBase(embeddings=base.embeddings, class_starts=base.class_starts, files=base, names_file=names)


def _count_embeddings(file: Path, size: int) -> int:
    try:
        with open_regular_file(file, _MAX_EMBEDDINGS_BYTES) as opened:
            if opened.read(len(_NUMPY_1)) != _NUMPY_1:  # later versions allow a header as long as the file
                raise ValueError("no .npy file of version 1.0")
        embeddings = open_memmap(file, "r")  # type: ignore[no-untyped-call]
    except Exception as error:  # numpy raises ValueError, OverflowError and more on broken files
        raise damaged(file, f"{type(error).__name__}: {error}") from error
    if embeddings.dtype != np.float32 or embeddings.shape[1:] != (size,):
        kind = f"{embeddings.dtype} {list(embeddings.shape)}"
        raise damaged(file, f"it holds {kind}, and must hold float32 embeddings of {size} values")
    for start in range(0, len(embeddings), _BLOCK_ROWS):
        block = embeddings[start : start + _BLOCK_ROWS]
        with np.errstate(over="ignore", invalid="ignore"):
            squares = np.einsum("ij,ij->i", block, block)
        wrong = np.flatnonzero(~((np.abs(squares - 1) < _NORM_TOLERANCE) | (squares == 0)))
        if len(wrong):
            raise damaged(file, f"the embedding in row {start + wrong[0]} is not L2-normalized")
    return len(embeddings)
