"""Building the base set, with which ``cluster_head`` compares queries in clustering mode."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from inference_export.base_set.base_images import BaseImages, require_decodable
from inference_export.base_set.embedding import embed_images
from inference_export.base_set.embedding_cache import find_embedded, open_cache
from inference_export.base_set.image_files import ImageFiles
from inference_export.errors import NetworkError
from inference_export.onnx_session import open_graph
from inference_export.progress import Progress
from inference_export.template import load_served_module

_CHECKED_AT_A_TIME = 32
_served = load_served_module("cluster_head", "base_set")
BASE_SET_FILES = (_served.EMBEDDINGS_FILE, _served.NAMES_FILE, _served.CLASS_SIZES_FILE)


def check_base_images(
    base: BaseImages, images: ImageFiles, *, cache: Path, skip_undecodable: bool, progress: Progress
) -> BaseImages:
    """Read all base images, and leave out or refuse undecodable ones.

    Images whose embedding is cached are known to decode. They are only read.

    Args:
        base: The base images.
        images: Reads and decodes the images.
        cache: Folder of cached embeddings.
        skip_undecodable: Leave undecodable base images out with a note, instead of failing.
        progress: Shows how many base images have been read.

    Returns:
        The base images that decode.

    Raises:
        BaseDataError: Undecodable base images may not be left out, or a class has no other image.
        ChangedError: A base image has changed since it was read.
    """
    undecodable = find_undecodable(base.files, images, cache=cache, label="reading base images", progress=progress)
    return require_decodable(base, undecodable, skip=skip_undecodable)


def find_undecodable(
    files: Sequence[Path], images: ImageFiles, *, cache: Path, label: str, progress: Progress
) -> dict[Path, str]:
    """Read image files, and decode those whose embedding is not cached.

    Args:
        files: The files.
        images: Reads and decodes the images.
        cache: Folder of cached embeddings.
        label: Name of this step, for the progress.
        progress: Shows how many files have been read.

    Returns:
        Undecodable or unreadable file to reason.

    Raises:
        ChangedError: A file has changed since it was read.
    """
    known = find_embedded(cache, images.decoding)
    undecodable: dict[Path, str] = {}
    with progress(label, len(files)) as advance:
        for start in range(0, len(files), _CHECKED_AT_A_TIME):
            batch = files[start : start + _CHECKED_AT_A_TIME]
            undecodable |= images.find_undecodable(batch, known)
            advance(len(batch))
    return undecodable


def build_base_set(
    base: BaseImages,
    images: ImageFiles,
    *,
    graph: Path,
    graph_hash: str,
    cache: Path,
    folder: Path,
    batch_size: int,
    progress: Progress,
) -> BaseImages:
    """Embed base images, and write embeddings, names and class sizes into a version folder of ``cluster_head``.

    Args:
        base: The base images that ``check_base_images`` returned.
        images: The reader that ``check_base_images`` used.
        graph: The version's ONNX graph.
        graph_hash: The graph's SHA-256, in hexadecimal.
        cache: Folder of cached embeddings.
        folder: The version folder, which exists.
        batch_size: Images in a run of the graph, at least 1.
        progress: Shows how many base images have been embedded.

    Returns:
        The base images, with a note if some match nothing.

    Raises:
        BaseDataError: A base image no longer decodes.
        ChangedError: A base image has changed since it was read.
        NetworkError: Every embedding is zero.
        OSError: The disk is full.
    """
    with (
        open_cache(cache, images.decoding, graph_hash) as embeddings,
        progress("embedding base images", len(base.files)) as advance,
    ):
        zeros = embed_images(
            open_graph(graph),
            images,
            embeddings,
            base.files,
            destination=folder / _served.EMBEDDINGS_FILE,
            batch_size=batch_size,
            advance=advance,
        )
    if len(zeros) == len(base.files):
        raise NetworkError(
            "the network gives every base image an embedding of zeros, which is similar to nothing, so no query could "
            "match. Is the network trained, and is this the right checkpoint?"
        )
    sizes = [len(files) for files in base.classes.values()]
    (folder / _served.CLASS_SIZES_FILE).write_text(json.dumps(sizes), encoding="utf-8")
    (folder / _served.NAMES_FILE).write_text("".join(f"{name}\n" for name in base.names), encoding="utf-8")
    if not zeros:
        return base
    note = f"{len(zeros)} base images have an embedding of zeros and match nothing, such as {base.names[zeros[0]]}"
    return replace(base, notes=[*base.notes, note])
