"""Embeddings of the base images: the server's preprocessing, then the exported graph."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.lib.format import open_memmap

from inference_export.base_set.embedding_cache import EmbeddingCache, content_key
from inference_export.base_set.image_files import ImageFiles
from inference_export.base_set.scoring import normalize
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
    embedding_size: int,
    batch_size: int,
    skip_unreadable: bool,
    advance: Callable[[int], None],
) -> dict[Path, str]:
    """Compute the embeddings of image files, or take them from the cache, and write them as they come.

    Args:
        session: The exported graph.
        images: Reads and decodes them.
        cache: Of this graph and decoder.
        files: B image files, at least one.
        destination: A file to write: L2-normalized embeddings of the files that decode, float32 [at most B, D], in
            their order, as ``.npy``.
        embedding_size: Length D of an embedding.
        batch_size: Images in a run of the graph, at least 1.
        skip_unreadable: Go on past files that do not decode; otherwise the rest is only decoded, to list them all.
        advance: Told after each batch how many files are done.

    Returns:
        The reason for each file that does not decode.

    Raises:
        ChangedError: A file was read before, and is another now.
        OSError: The disk is full.
    """
    unreadable: dict[Path, str] = {}
    written = _open_embeddings(destination, len(files), embedding_size)
    count = 0
    for start in range(0, len(files), batch_size):
        batch = files[start : start + batch_size]
        contents, failures = images.read(batch)
        keys = [content_key(content) for content in contents]
        embeddings = cache.get(keys)
        unknown = [row for row, found in enumerate(embeddings) if found is None and not failures[row]]
        pixels, reasons = images.decoder.decode([contents[row] for row in unknown])
        for row, reason in zip(unknown, reasons, strict=True):
            failures[row] = reason
        unreadable.update({file: failure for file, failure in zip(batch, failures, strict=True) if failure})
        good = [row for row in unknown if not failures[row]]
        if good and (skip_unreadable or not unreadable):
            computed = normalize(run_graph(session, pixels[[not reason for reason in reasons]])[0])
            cache.put([keys[row] for row in good], computed)
            for row, embedding in zip(good, computed, strict=True):
                embeddings[row] = embedding
        for known in embeddings:
            if known is not None:
                written[count] = known
                count += 1
        advance(len(batch))
    written.flush()
    if count < len(files):
        shorter = destination.with_suffix(".partial")
        with shorter.open("wb") as file:
            np.save(file, written[:count])
        shorter.replace(destination)
    return unreadable


def _open_embeddings(file: Path, count: int, size: int) -> np.memmap[tuple[int, int], np.dtype[np.float32]]:
    embeddings = open_memmap(file, "w+", np.float32, (count, size))  # type: ignore[no-untyped-call]
    with file.open("r+b") as opened:  # a mapped page that the disk has no room for would end the process
        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return cast("np.memmap[tuple[int, int], np.dtype[np.float32]]", embeddings)


def find_zeros(file: Path) -> list[int]:
    """List the rows of embeddings of zeros, in a file that ``embed_images`` has written."""
    found: list[int] = np.flatnonzero(~np.load(file, mmap_mode="r").any(axis=1)).tolist()
    return found
