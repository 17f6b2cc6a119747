"""Compares the time in which an export embeds the base set with the ceiling."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np

from bench.in_process import ThreadDecoder
from bench.report import Figure, Report
from bench.serving import graph_of
from bench.setting import IMAGE_SIZE, Setting
from inference_export.base_set.decoding import DEFAULT_LIMITS
from inference_export.base_set.embedding import embed_images
from inference_export.base_set.embedding_cache import EmbeddingCache
from inference_export.base_set.image_files import open_image_files
from inference_export.onnx_session import open_graph, run_graph
from inference_export.regular_files import FileReader

EMBEDDING_SIZE = 512
BATCH = 32  # export-repository's default


def bench_embedding(setting: Setting, report: Report, *, quick: bool) -> None:
    """Embed files as the export does, and in turn decode them and run the network with nothing else."""
    session = open_graph(graph_of(setting.export("fp32")))
    in_process = ThreadDecoder(IMAGE_SIZE)
    files = list(itertools.islice(itertools.cycle(setting.queries), BATCH * (1 if quick else 2)))
    contents = [file.read_bytes() for file in files]
    embeddings = np.empty((len(files), EMBEDDING_SIZE), np.float32)
    ratios = []
    for _ in range(max(3, setting.rounds)):
        with open_image_files(FileReader(), image_size=IMAGE_SIZE, decode="exact", limits=DEFAULT_LIMITS) as images:
            began_s = time.monotonic()
            images.find_undecodable(files)
            embed_images(
                lambda: session,
                images,
                EmbeddingCache(None),
                files,
                destination=embeddings,
                rows=np.arange(len(files)),
                batch_size=BATCH,
            )
            ours_s = time.monotonic() - began_s
        ceiling_s = min(_ceiling_s(session, in_process, contents, size) for size in (BATCH // 4, BATCH))
        ratios.append(ceiling_s / ours_s)
    report.figures.append(Figure(name="base embeddings / ceiling", values=ratios, at_least=0.95))


def _ceiling_s(session: Any, decoder: ThreadDecoder, contents: list[bytes], size: int) -> float:
    began_s = time.monotonic()
    for start in range(0, len(contents), size):
        run_graph(session, decoder.decode(contents[start : start + size]))
    return time.monotonic() - began_s
