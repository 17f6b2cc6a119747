"""Building the base set, with which ``cluster_head`` compares queries in clustering mode."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from inference_export.base_set.base_images import BaseImages, note_rotated, require_decodable
from inference_export.base_set.embedding import embed_images, find_zeros, open_embeddings
from inference_export.base_set.embedding_cache import open_cache, open_embedded
from inference_export.base_set.image_files import ImageFiles
from inference_export.base_set.known_images import KnownImages
from inference_export.errors import NetworkError
from inference_export.progress import Progress
from inference_export.template import load_served_module

if TYPE_CHECKING:
    import onnxruntime

_CHECKED_AT_A_TIME = 32
_served = load_served_module("cluster_head", "base_set")
BASE_SET_FILES = (_served.EMBEDDINGS_FILE, _served.NAMES_FILE, _served.CLASS_SIZES_FILE)


def check_base_images(
    base: BaseImages,
    known: KnownImages,
    images: ImageFiles,
    *,
    cache: Path,
    skip_undecodable: bool,
    progress: Progress,
) -> tuple[BaseImages, KnownImages]:
    """Read all base images whose files have changed, and leave out or refuse undecodable ones.

    Images whose embedding is cached are known to decode. They are only read.

    Args:
        base: The base images.
        known: The images whose files have not changed.
        images: Reads and decodes the images.
        cache: Folder of cached embeddings.
        skip_undecodable: Leave undecodable base images out with a note, instead of failing.
        progress: Shows how many base images have been read.

    Returns:
        The base images that decode, with a note if some of those read are not stored upright; what is known about them.

    Raises:
        BaseDataError: Undecodable base images may not be left out, or a class has no other image.
        ChangedError: A base image has changed since it was read.
    """
    files = known.unknown_files(base)
    undecodable = find_undecodable(files, images, cache=cache, label="reading base images", progress=progress)
    left_out = [position for position, file in zip(known.unknown, files, strict=True) if file in undecodable]
    decodable = require_decodable(base, undecodable, skip=skip_undecodable)
    return note_rotated(decodable, images.notes), known.without(left_out)


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
    undecodable: dict[Path, str] = {}
    with open_embedded(cache, images.decoding) as known, progress(label, len(files)) as advance:
        for start in range(0, len(files), _CHECKED_AT_A_TIME):
            batch = files[start : start + _CHECKED_AT_A_TIME]
            undecodable |= images.find_undecodable(batch, known)
            advance(len(batch))
    return undecodable


def build_base_set(
    base: BaseImages,
    known: KnownImages,
    images: ImageFiles,
    *,
    embedding_size: int,
    load_graph: Callable[[], onnxruntime.InferenceSession],
    graph_hash: str,
    cache: Path,
    folder: Path,
    batch_size: int,
    progress: Progress,
) -> BaseImages:
    """Embed base images, and write embeddings, names and class sizes into a version folder of ``cluster_head``.

    Args:
        base: The base images that ``check_base_images`` returned.
        known: What is known about them. Embeddings of known images are taken over.
        images: The reader that ``check_base_images`` used.
        embedding_size: Length D of an embedding.
        load_graph: Loads the version's graph, if it is needed.
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
    embeddings = open_embeddings(folder / _served.EMBEDDINGS_FILE, len(base), embedding_size)
    files = known.unknown_files(base)
    with (
        open_cache(cache, images.decoding, graph_hash) as cached,
        progress("embedding base images", len(files)) as advance,
    ):
        embed_images(
            load_graph,
            images,
            cached,
            files,
            destination=embeddings,
            rows=known.unknown,
            batch_size=batch_size,
            advance=advance,
        )
    known.copy_embeddings(embeddings)
    embeddings.flush()
    zeros = find_zeros(embeddings)
    if len(zeros) == len(base):
        raise NetworkError(
            "the network gives every base image an embedding of zeros, which is similar to nothing, so no query could "
            "match. Is the network trained, and is this the right checkpoint?"
        )
    sizes = [len(names) for names in base.classes.values()]
    (folder / _served.CLASS_SIZES_FILE).write_text(json.dumps(sizes), encoding="utf-8")
    with (folder / _served.NAMES_FILE).open("w", encoding="utf-8") as names:
        names.writelines(f"{name}\n" for name in base.names)
    if not len(zeros):
        return base
    example = base.name(int(zeros[0]))
    note = f"{len(zeros)} base images have an embedding of zeros and match nothing, such as {example}"
    return replace(base, notes=[*base.notes, note])
