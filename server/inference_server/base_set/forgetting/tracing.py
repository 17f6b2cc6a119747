"""Collects what identifies images in files, from every version of a repository and from the cache."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from inference_export.base_set.embedding_cache import look_up_contents, look_up_everywhere
from inference_export.base_set.scoring import Float32
from inference_export.changing import open_version_images, version_graph
from inference_export.onnx_session import open_graph, run_graph
from inference_export.regular_files import FileReader
from inference_export.repository.configs import HEAD
from inference_export.repository.contents import Contents, StoredBase
from inference_export.repository.publishing import previous_path
from inference_export.repository.versions import list_folders
from inference_export.template import load_served_module
from inference_server.base_set.forgetting.traces import Traces
from inference_server.base_set.forgetting.withdrawn_files import WithdrawnFiles

_base_files = load_served_module("cluster_head", "base_set")


def collect_traces(contents: Contents, files: WithdrawnFiles, names: Collection[str], cache: Path) -> Traces:
    """Collect the names, embeddings and content hashes of images.

    Args:
        contents: The version that the repository answers with.
        files: The images' files.
        names: ``class/file name`` of each image.
        cache: Folder of cached embeddings.

    Raises:
        OSError: A cache can't be read.
    """
    base = contents.base
    hashes = set(files.hashes.values())
    embeddings = look_up_everywhere(cache, hashes)
    present = set(files.names)
    if base is not None:
        rows = _rows(base.names(), base.embeddings, names)
        embeddings |= {row for _, row in rows}
        present |= {name for name, _ in rows}
    for folder in _version_folders(contents.repository):
        for name, row in _stored_rows(folder, names):
            # The name of an image that is present may have been another's in an older version. That one may stay.
            if name not in present or base is None or not set(_holders(base, row)) - set(names):
                embeddings.add(row)
    embeddings = {row for row in embeddings if any(row)}
    return Traces(names=names, embeddings=embeddings, hashes=hashes | look_up_contents(cache, embeddings))


def names_in_versions(repository: Path, names: Collection[str]) -> set[str]:
    """Return which images any version of a repository, or of the repository that it replaced, names."""
    return {name for folder in _version_folders(repository) for name in names if name in _stored_names(folder)}


def equal_images(base: StoredBase, traces: Traces) -> list[str]:
    """Return the base images of other names whose embedding is that of one of the images, sorted."""
    holders = (name for embedding in traces.embeddings for name in _holders(base, embedding))
    return sorted(set(holders) - set(traces.names))


def computed_embeddings(contents: Contents, files: Sequence[Path], batch_size: int) -> set[bytes]:
    """Return the bytes of the embeddings that a version's graph computes; a query with such a file leaves them."""
    embeddings: set[bytes] = set()
    with open_version_images(contents, FileReader()) as images:
        session = open_graph(version_graph(contents))
        for start in range(0, len(files), batch_size):
            pixels, reasons = images.decode(files[start : start + batch_size])
            rows = run_graph(session, pixels)[0]
            embeddings |= {row.tobytes() for row, reason in zip(rows, reasons, strict=True) if not reason}
    return {row for row in embeddings if any(row)}


def _version_folders(repository: Path) -> Iterator[Path]:
    """List the version folders of ``cluster_head``, complete or not, in a repository and in the one it replaced."""
    for each in (repository, previous_path(repository)):
        if (each / HEAD).is_dir():
            yield from (each / HEAD / str(number) for number in list_folders(each / HEAD))


def _stored_names(folder: Path) -> list[str]:
    try:
        return Path(folder / _base_files.NAMES_FILE).read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, ValueError):  # classification mode, or damaged
        return []


def _stored_rows(folder: Path, names: Collection[str]) -> list[tuple[str, bytes]]:
    """Read the embeddings of images from a version folder, which may be damaged."""
    stored = _stored_names(folder)
    if not set(names) & set(stored):
        return []
    try:
        embeddings = np.load(folder / _base_files.EMBEDDINGS_FILE, mmap_mode="r")
        return _rows(stored, embeddings, names) if len(embeddings) == len(stored) else []
    except (OSError, ValueError, EOFError, TypeError):
        return []


def _rows(stored: Sequence[str], embeddings: Float32, names: Collection[str]) -> list[tuple[str, bytes]]:
    wanted = set(names)
    return [(name, embeddings[row].tobytes()) for row, name in enumerate(stored) if name in wanted]


def _holders(base: StoredBase, embedding: bytes) -> list[str]:
    """Return the names of the base images with exactly this embedding."""
    if len(embedding) != base.embeddings.shape[1] * base.embeddings.itemsize:
        return []
    equal = (base.embeddings == np.frombuffer(embedding, np.float32)).all(axis=1)
    return [base.name(int(row)) for row in np.flatnonzero(equal)]
