"""Embedding the base images, with the server's preprocessing and the exported graph."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.lib.format import open_memmap

from inference_export.base_set.embedding_cache import EmbeddingCache
from inference_export.base_set.image_files import ImageFiles
from inference_export.base_set.scoring import Float32, Index, normalize
from inference_export.errors import BaseDataError
from inference_export.onnx_session import run_graph

if TYPE_CHECKING:
    import onnxruntime

_BLOCK_ROWS = 8192


def embed_images(
    load_graph: Callable[[], onnxruntime.InferenceSession],
    images: ImageFiles,
    cache: EmbeddingCache,
    files: Sequence[Path],
    *,
    destination: Float32,
    rows: Index,
    batch_size: int,
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Compute the embeddings of image files, or take them from the cache, and write them batch by batch.

    Args:
        load_graph: Loads the exported graph. Called once if the cache lacks an embedding, otherwise never.
        images: The reader that has read the files.
        cache: Embeddings of this graph and this way to decode.
        files: Image files, N of them.
        destination: Receives the L2-normalized embeddings, float32 [B, D].
        rows: Row of each file in ``destination``, integers [N].
        batch_size: Images in a run of the graph, at least 1.
        advance: Called with the number of files done since the last call.

    Raises:
        BaseDataError: A file does not decode.
        ChangedError: A file has changed since it was read.
    """
    session: onnxruntime.InferenceSession | None = None
    for start in range(0, len(files), batch_size):
        batch = files[start : start + batch_size]
        keys = [images.content_key(file) for file in batch]
        embeddings = cache.get(keys)
        size = destination.shape[1]
        unknown = [row for row, embedding in enumerate(embeddings) if embedding is None or len(embedding) != size]
        if unknown:
            pixels, reasons = images.decode([batch[row] for row in unknown])
            for row, reason in zip(unknown, reasons, strict=True):
                if reason:
                    raise BaseDataError(f"{batch[row]} does not decode: {reason}. Export again.", batch[row])
            session = session or load_graph()
            computed = normalize(run_graph(session, pixels)[0])
            cache.put([keys[row] for row in unknown], computed)
            for row, embedding in zip(unknown, computed, strict=True):
                embeddings[row] = embedding
        destination[rows[start : start + len(batch)]] = embeddings
        advance(len(batch))


def open_embeddings(file: Path, count: int, size: int) -> np.memmap[tuple[int, int], np.dtype[np.float32]]:
    """Make a ``.npy`` file for embeddings, float32 [count, size], and map it for writing.

    Raises:
        OSError: The disk is full.
    """
    embeddings = open_memmap(file, "w+", np.float32, (count, size))  # type: ignore[no-untyped-call]
    with file.open("r+b") as opened:  # with a full disk, writing to a mapped page would end the process
        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return cast("np.memmap[tuple[int, int], np.dtype[np.float32]]", embeddings)


def find_zeros(embeddings: Float32) -> Index:
    """Return the rows of embeddings, float32 [B, D], that are zero."""
    zeros = [
        start + np.flatnonzero(~embeddings[start : start + _BLOCK_ROWS].any(axis=1))
        for start in range(0, len(embeddings), _BLOCK_ROWS)
    ]
    return np.concatenate(zeros)
