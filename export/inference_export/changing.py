"""A change of the base set: a version with the network of the version before, made without PyTorch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inference_export.base_set.base_images import BaseImages, check_unknown_label, find_base_images
from inference_export.base_set.building import BASE_SET_FILES, build_base_set, check_base_images
from inference_export.base_set.decoding import Geometry, Limits
from inference_export.base_set.embedding_cache import default_cache_folder
from inference_export.base_set.image_files import ImageFiles, open_image_files
from inference_export.base_set.known_images import FileRecord, KnownImages, find_known, record_files
from inference_export.base_set.scoring import Index
from inference_export.errors import RepositoryError
from inference_export.export_options import ExportOptions
from inference_export.onnx_session import open_graph
from inference_export.progress import Progress, show_nothing
from inference_export.regular_files import FileReader
from inference_export.repository.configs import HEAD
from inference_export.repository.contents import Contents, StoredBase, read_base, read_contents
from inference_export.repository.destination import resolve_destination
from inference_export.repository.provenance import Provenance, hash_images, software, write_provenance
from inference_export.repository.publishing import publish_base_set
from inference_export.repository.staging import staging
from inference_export.repository.version_files import SETTINGS_FILE, Settings, read_object, take_entry, write_settings
from inference_export.repository.versions import PROVENANCE_FILE

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_DEFAULTS = ExportOptions(resources=Path())
_LARGE_REMOVAL = 0.5
_BLOCK_ROWS = 8192


@dataclass(frozen=True, kw_only=True)
class BaseSetOptions:
    """What to change about the base set of a repository; None leaves a setting as it is.

    Attributes:
        model_repository: The model repository.
        base_data: The folder to follow: a folder for each class, with its reference images inside; None: the base
            images stay.
        sim_thres: Smallest cosine similarity at which a base image counts as a match, -1 to 1.
        unknown_label: Label of a query that no base image matches; "": the nearest class answers.
        neighbors: Number of most similar base images that an answer names, 1 to 1000.
        skip_unreadable: Whether to leave out base images that do not decode, instead of failing.
        batch_size: Base images embedded at a time; changes no result.
        cache: Folder that keeps computed embeddings.

    Raises:
        ValueError: A value is out of its range.
    """

    model_repository: Path
    base_data: Path | None = None
    sim_thres: float | None = None
    unknown_label: str | None = None
    neighbors: int | None = None
    skip_unreadable: bool | None = None
    batch_size: int = _DEFAULTS.batch_size
    cache: Path = field(default_factory=default_cache_folder)

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in ("sim_thres", "neighbors") if getattr(self, name) is not None}
        replace(_DEFAULTS, unknown_label=self.unknown_label or None, batch_size=self.batch_size, **given)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The base images that two base sets do not share, as ``class/file name``, sorted.

    Attributes:
        added: Images of the second base set alone.
        removed: Images of the first base set alone.
        replaced: Images of both, with another content.
    """

    added: list[str]
    removed: list[str]
    replaced: list[str]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.replaced)


@dataclass(frozen=True, kw_only=True)
class PreparedChange:
    """A change that is complete but for its publication.

    Attributes:
        before: The version that the repository answers with.
        base_before: Its base set.
        settings: What the new version answers by.
        base: The new base set.
        images: The base images that it was made from; None if the base images stay.
        record: The record of their files, for the next change; None: it is there already.
        difference: The base images that come and go.
        is_new: Whether the new version would differ from the one before.
        staged: The folder that holds the new version.
    """

    before: Contents
    base_before: StoredBase
    settings: Settings
    base: StoredBase
    images: BaseImages | None
    record: FileRecord | None
    difference: Difference
    is_new: bool
    staged: Path

    @property
    def notes(self) -> list[str]:
        """Notes for the user, such as files left out."""
        return [] if self.images is None else self.images.notes

    @property
    def removes_most(self) -> bool:
        """Whether more than half of the base images would go."""
        return len(self.difference.removed) > _LARGE_REMOVAL * len(self.base_before.embeddings)

    def publish(self) -> int:
        """Have the repository answer with the new version.

        Returns:
            The version's number; that of the version before if nothing is new.

        Raises:
            RepositoryError: Another command has changed the repository meanwhile.
        """
        if self.record is not None:
            self.record.write()
        if not self.is_new:
            return self.before.export.version.number
        return publish_base_set(self.staged, self.before.repository, self.before.export.version).number


@contextlib.contextmanager
def prepare_change(options: BaseSetOptions, progress: Progress = show_nothing) -> Iterator[PreparedChange]:
    """Build a changed base set beside the repository; nothing is published.

    Images are decoded and embedded by the repository's own preprocessing and graph, with ONNX Runtime.

    Args:
        options: What to change.
        progress: As in ``export_repository``.

    Yields:
        The change, until the context ends and removes it, unless it was published.

    Raises:
        ExportError: The repository or the base data can't be used. Nothing was replaced.
        OSError: The disk is full, or a file can't be written. Nothing was replaced.
    """
    repository = resolve_destination(options.model_repository)
    before = read_contents(repository)
    base_before = _require_base_set(before)
    _require_this_software(repository, before.export.provenance)
    settings = _settings(before.export.settings, options)
    with staging(repository, models=(HEAD,)) as staged:
        folder = staged / HEAD
        images: BaseImages | None = None
        record: FileRecord | None = None
        if options.base_data is None:
            base_hash = before.export.provenance.base_data
            _link_base_set(repository / HEAD / before.export.version.folder(HEAD), folder)
        else:
            images, known, record, base_hash = _build(before, options, options.base_data, folder, progress)
            settings = replace(settings, classes=list(images.classes))
        check_unknown_label(settings.classes, settings.unknown_label, options.base_data or repository)
        write_settings(folder / SETTINGS_FILE, settings)
        provenance = _provenance(before, options, settings, base_hash)
        write_provenance(folder / PROVENANCE_FILE, provenance)
        base = read_base(folder, len(settings.classes), before.shape.embedding_size)
        yield PreparedChange(
            before=before,
            base_before=base_before,
            settings=settings,
            base=base,
            images=images,
            record=record,
            difference=(
                Difference(added=[], removed=[], replaced=[])
                if images is None
                else _difference(base_before, base, known.named, np.flatnonzero((known.rows < 0) & (known.named >= 0)))
            ),
            is_new=_comparable(provenance) != _comparable(before.export.provenance),
            staged=staged,
        )


def compare(one: StoredBase, other: StoredBase) -> Difference:
    """Compare two base sets of the same network by the names and the embeddings of their images."""
    names, new_names = one.names(), other.names()
    rows = {name: row for row, name in enumerate(names)}
    named = np.array([rows.get(name, -1) for name in new_names], np.intp)
    return _difference(one, other, named, np.flatnonzero(named >= 0))


def version_graph(contents: Contents) -> Path:
    """Return the path of a version's ONNX graph."""
    return contents.repository / "classifier" / contents.export.version.folder("classifier") / "model.onnx"


def open_version_images(contents: Contents, reader: FileReader) -> AbstractContextManager[ImageFiles]:
    """Open a reader of image files that decodes as a version does.

    Raises:
        RepositoryError: The version's settings are damaged.
    """
    file = contents.repository / "preprocess" / contents.export.version.folder("preprocess") / SETTINGS_FILE
    take = partial(take_entry, file, read_object(file))
    decode = take("decode", lambda value: value in ("exact", "reduced"))
    limits = take("limits", lambda value: isinstance(value, dict) and set(value) == set(Limits._fields))
    geometry = take("geometry", lambda value: isinstance(value, dict) and set(value) == set(Geometry._fields))
    return open_image_files(
        reader,
        image_size=contents.shape.image_size,
        decode=decode,
        limits=Limits(**limits),
        geometry=Geometry(**geometry),
    )


def _difference(one: StoredBase, other: StoredBase, named: Index, doubtful: Index) -> Difference:
    """Compare two base sets.

    Args:
        one: The first base set, of B images.
        other: The second base set, of N images.
        named: Row in the first base set of the image of the same name, integers [N]; -1: there is none.
        doubtful: Rows of ``other`` whose image is in both, and may have another content.
    """
    gone = np.ones(len(one.embeddings), bool)
    gone[named[named >= 0]] = False
    replaced: list[int] = []
    for start in range(0, len(doubtful), _BLOCK_ROWS):
        rows = doubtful[start : start + _BLOCK_ROWS]
        differs = (one.embeddings[named[rows]] != other.embeddings[rows]).any(axis=1)
        replaced += rows[differs].tolist()
    return Difference(
        added=[other.name(int(row)) for row in np.flatnonzero(named < 0)],
        removed=[one.name(int(row)) for row in np.flatnonzero(gone)],
        replaced=[other.name(row) for row in replaced],
    )


def _require_base_set(contents: Contents) -> StoredBase:
    if contents.base is None:
        raise RepositoryError(
            f"{contents.repository} answers in classification mode, and has no base set. Export it with -data and "
            f"--mode clustering.",
            contents.repository,
        )
    return contents.base


def _require_this_software(repository: Path, provenance: Provenance) -> None:
    current = software()
    if provenance.software != current:
        made_by = str(provenance.software[0]) if provenance.software else "an earlier version"
        raise RepositoryError(
            f"{repository} was exported by classify-triton {made_by}, with other code than this one, {current[0]}. "
            f"Export it again with export-repository; after that, base-set can change it.",
            repository,
        )


def _settings(before: Settings, options: BaseSetOptions) -> Settings:
    unknown = before.unknown_label if options.unknown_label is None else options.unknown_label or None
    return replace(
        before,
        threshold=before.threshold if options.sim_thres is None else options.sim_thres,
        unknown_label=unknown,
        neighbors=before.neighbors if options.neighbors is None else options.neighbors,
    )


def _build(
    before: Contents,
    options: BaseSetOptions,
    base_data: Path,
    folder: Path,
    progress: Progress,
) -> tuple[BaseImages, KnownImages, FileRecord | None, str]:
    """Build the base set of a folder of images.

    Returns:
        The images that decode; what was known about them; the record of their files, unless it is there; the hash of
        all images.
    """
    base_before = _require_base_set(before)
    found = find_base_images(base_data)
    recorded = before.export.provenance.options
    skip = recorded.get("skip_unreadable", False) if options.skip_unreadable is None else options.skip_unreadable
    reader = FileReader()
    with open_version_images(before, reader) as files, ThreadPoolExecutor(1) as background:
        all_known = find_known(
            found,
            names=base_before.names(),
            embeddings=base_before.embeddings,
            cache=options.cache,
            decoding=files.decoding,
            base_data=before.export.provenance.base_data,
        )
        load_graph: Callable[[], InferenceSession] = partial(open_graph, version_graph(before))
        if len(all_known.unknown):  # loads it while the images are read
            load_graph = background.submit(load_graph).result
        base, known = check_base_images(
            found, all_known, files, cache=options.cache, skip_undecodable=skip, progress=progress
        )
        base = build_base_set(
            base,
            known,
            files,
            embedding_size=before.shape.embedding_size,
            load_graph=load_graph,
            graph_hash=before.export.provenance.graph,
            cache=options.cache,
            folder=folder,
            batch_size=options.batch_size,
            progress=progress,
        )
    base_hash = hash_images(found.names, all_known.hashes(found, reader))
    record = None
    if len(known.unknown) or base_hash != before.export.provenance.base_data:
        record = record_files(base, known, reader, cache=options.cache, decoding=files.decoding, base_data=base_hash)
    return base, known, record, base_hash


def _link_base_set(source: Path, folder: Path) -> None:
    """Take over the files of a base set, which no version changes in place."""
    for name in BASE_SET_FILES:
        os.link(source / name, folder / name)


def _provenance(before: Contents, options: BaseSetOptions, settings: Settings, base_hash: str | None) -> Provenance:
    recorded = before.export.provenance.options | {
        "sim_thres": settings.threshold,
        "unknown_label": settings.unknown_label,
        "neighbors": settings.neighbors,
    }
    if options.skip_unreadable is not None:
        recorded["skip_unreadable"] = options.skip_unreadable
    return replace(
        before.export.provenance,
        options=recorded,
        base_data=base_hash,
        exported=datetime.now(UTC).isoformat(timespec="seconds"),
        network_version=before.export.version.network,
    )


def _comparable(provenance: Provenance) -> dict[str, Any]:
    return asdict(replace(provenance, exported=None, network_version=None))
