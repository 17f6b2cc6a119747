"""Base images in, a base set out: what ``cluster_head`` answers from in clustering mode."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference_export.base_set.base_images import BaseImages, require_readable
from inference_export.base_set.embedding import embed_images, find_zeros
from inference_export.base_set.embedding_cache import open_cache
from inference_export.base_set.image_files import ImageFiles
from inference_export.errors import NetworkError
from inference_export.onnx_session import open_graph
from inference_export.progress import Progress
from inference_export.template import load_served_module

_base_files = load_served_module("cluster_head", "base_set")


def build_base_set(
    base: BaseImages,
    images: ImageFiles,
    *,
    graph: Path,
    fingerprint: str,
    cache: Path,
    folder: Path,
    embedding_size: int,
    batch_size: int,
    skip_unreadable: bool,
    progress: Progress,
) -> BaseImages:
    """Embed base images, and write embeddings, names and class sizes into a version folder of ``cluster_head``.

    Args:
        base: The base images.
        images: Reads and decodes them as the version's ``preprocess`` does.
        graph: The version's ONNX graph.
        fingerprint: Everything that an embedding depends on, its image aside.
        cache: Folder that keeps embeddings.
        folder: The version folder, which exists.
        embedding_size: Length D of an embedding.
        batch_size: Images in a run of the graph, at least 1.
        skip_unreadable: Leave out base images that do not decode, with a note, instead of failing.
        progress: Shows how many base images are embedded.

    Returns:
        The base images in the base set, with notes on those that are not or that match nothing.

    Raises:
        BaseDataError: Base images do not decode.
        ChangedError: A base image was read before and has changed since.
        NetworkError: Every embedding is zero.
        OSError: The disk is full.
    """
    with (
        open_cache(cache, hashlib.sha256(fingerprint.encode()).hexdigest()[:32]) as opened,
        progress("embedding base images", len(base.files)) as advance,
    ):
        unreadable = embed_images(
            open_graph(graph),
            images,
            opened,
            base.files,
            destination=folder / _base_files.EMBEDDINGS_FILE,
            embedding_size=embedding_size,
            batch_size=batch_size,
            skip_unreadable=skip_unreadable,
            advance=advance,
        )
    base = require_readable(base, unreadable, skip=skip_unreadable)
    zeros = find_zeros(folder / _base_files.EMBEDDINGS_FILE)
    if len(zeros) == len(base.files):
        raise NetworkError(
            "the network gives every base image an embedding of zeros, which is like no other: no query could be told "
            "from another. Is it trained, and is this the right checkpoint?"
        )
    if zeros:
        note = f"{len(zeros)} base images have an embedding of zeros, and match nothing: {base.names[zeros[0]]}, ..."
        base = replace(base, notes=[*base.notes, note])
    _write_json(folder / _base_files.CLASS_SIZES_FILE, [len(files) for files in base.classes.values()])
    with (folder / _base_files.NAMES_FILE).open("w", encoding="utf-8") as names:
        names.writelines(f"{name}\n" for name in base.names)
    return base


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
