"""Embedding the base images, with the server's preprocessing and the exported graph."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.lib.format import open_memmap

from inference_export.base_set.embedding_cache import EmbeddingCache
from inference_export.base_set.image_files import ImageFiles
from inference_export.base_set.scoring import normalize
from inference_export.errors import BaseDataError
from inference_export.onnx_session import run_graph

if TYPE_CHECKING:
    import onnxruntime


def embed_images(
    session: onnxruntime.InferenceSession,
    images: ImageFiles,
    cache: EmbeddingCache,
    files: list[Path],
    *,
    destination: Path,
    batch_size: int,
    advance: Callable[[int], None] = lambda count: None,
) -> list[int]:
    """Compute the embeddings of image files, or take them from the cache, and write them batch by batch.

    Args:
        session: The exported graph.
        images: The reader that has read the files.
        cache: Embeddings of this graph and this way to decode.
        files: Image files, B of them, at least 1.
        destination: The ``.npy`` file to write: L2-normalized embeddings, float32 [B, D].
        batch_size: Images in a run of the graph, at least 1.
        advance: Called with the number of files done since the last call.

    Returns:
        Rows of embeddings that are zero.

    Raises:
        BaseDataError: A file does not decode.
        ChangedError: A file has changed since it was read.
        OSError: The disk is full.
    """
    written = _open_embeddings(destination, len(files), session.get_outputs()[0].shape[1])
    zeros: list[int] = []
    for start in range(0, len(files), batch_size):
        batch = files[start : start + batch_size]
        keys = [images.content_key(file) for file in batch]
        embeddings = cache.get(keys)
        unknown = [row for row, embedding in enumerate(embeddings) if embedding is None]
        if unknown:
            pixels, reasons = images.decode([batch[row] for row in unknown])
            for row, reason in zip(unknown, reasons, strict=True):
                if reason:
                    raise BaseDataError(f"{batch[row]} does not decode: {reason}. Export again.", batch[row])
            computed = normalize(run_graph(session, pixels)[0])
            cache.put([keys[row] for row in unknown], computed)
            for row, embedding in zip(unknown, computed, strict=True):
                embeddings[row] = embedding
        rows = np.stack(cast("list[np.ndarray[tuple[int], np.dtype[np.float32]]]", embeddings))
        written[start : start + len(batch)] = rows
        zeros += (start + np.flatnonzero(~rows.any(axis=1))).tolist()
        advance(len(batch))
    written.flush()
    return zeros


def _open_embeddings(file: Path, count: int, size: int) -> np.memmap[tuple[int, int], np.dtype[np.float32]]:
    embeddings = open_memmap(file, "w+", np.float32, (count, size))  # type: ignore[no-untyped-call]
    with file.open("r+b") as opened:  # with a full disk, writing to a mapped page would end the process
        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return cast("np.memmap[tuple[int, int], np.dtype[np.float32]]", embeddings)
