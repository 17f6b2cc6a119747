"""Reading a version, and checking that its parts belong together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inference_export.base_set.decoding import PIXEL_SOURCES, hash_preprocessing
from inference_export.errors import RepositoryError
from inference_export.regular_files import hash_file
from inference_export.repository.configs import HEAD, Version
from inference_export.repository.provenance import Provenance, read_provenance
from inference_export.repository.version_files import SETTINGS_FILE, Settings, damaged, read_geometry, read_settings
from inference_export.repository.versions import PROVENANCE_FILE, exported_version

_SHORT_HASH = 6
_MAX_GRAPH_BYTES = 2**31  # ONNX's own limit


@dataclass(frozen=True, kw_only=True)
class Export:
    """A version in a repository.

    Attributes:
        version: The version.
        settings: What the version answers by.
        provenance: What the version was made of.
    """

    version: Version
    settings: Settings
    provenance: Provenance


def read_export(repository: Path, version: Version | None = None) -> Export | None:
    """Read a version, and check that its parts belong together.

    Args:
        repository: The model repository.
        version: A complete version; None: the one that the ensemble answers with.

    Returns:
        The version; None if the repository holds no complete export.

    Raises:
        RepositoryError: A file is damaged, or the base embeddings come from another graph or preprocessing.
    """
    if version is None:
        version = exported_version(repository)
    if version is None:
        return None
    head = repository / HEAD / version.folder(HEAD)
    settings = read_settings(head / SETTINGS_FILE)
    provenance = read_provenance(head / PROVENANCE_FILE)
    graph = repository / "classifier" / version.folder("classifier") / "model.onnx"
    preprocess = repository / "preprocess" / version.folder("preprocess")
    geometry = read_geometry(preprocess)
    hashes: tuple[tuple[str, str, Path, Callable[[], str]], ...] = (
        ("classifier (graph", provenance.graph, graph, lambda: hash_file(graph, _MAX_GRAPH_BYTES)),
        (
            "preprocessing (files and geometry",
            provenance.preprocessing,
            preprocess / PIXEL_SOURCES[0],
            lambda: hash_preprocessing(preprocess, geometry),
        ),
    )
    for what, recorded, file, compute_hash in hashes:
        try:
            served = compute_hash()
        except OSError as error:
            path = Path(error.filename or file)
            raise damaged(path, f"it can't be read, {error.strerror}") from error
        if served != recorded:
            raise RepositoryError(
                f"{head}: base embeddings were computed with another {what} {recorded[:_SHORT_HASH]}, serving "
                f"{served[:_SHORT_HASH]}).\n"
                f"  Run the export again with -data, or put the version back that they came from.",
                head,
            )
    return Export(version=version, settings=settings, provenance=provenance)
