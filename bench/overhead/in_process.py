"""The work of the three models in one process: decode, run the network, compare; nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench.in_process import ThreadDecoder
from bench.serving import graph_of, served_version
from inference_export.base_set.decoding import decode_pixels
from inference_export.onnx_session import open_graph, run_graph
from inference_export.template import load_served_module

ROUNDS = 3  # of each batch size, in turn


@dataclass(frozen=True, kw_only=True)
class InProcess:
    """The measurements of one process.

    Attributes:
        image_ms: Elapsed time for each image, in milliseconds, by batch size.
        decode_ms: Time of ``decode_pixels`` for one image, in milliseconds.
    """

    image_ms: dict[int, float]
    decode_ms: float


def measure_in_process(
    repository: Path, images: Path, image_size: int, batches: list[int], duration_s: float
) -> InProcess:
    """Measure in a separate process, for about ``duration_s`` seconds in total."""
    command = [
        sys.executable, "-m", "bench.overhead.in_process", str(repository), str(images), str(image_size),
        json.dumps(batches), str(duration_s),
    ]  # fmt: skip
    measured = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return InProcess(
        image_ms={int(batch): ms for batch, ms in measured["image_ms"].items()}, decode_ms=measured["decode_ms"]
    )


@click.command()
@click.argument("repository", type=click.Path(path_type=Path))
@click.argument("images", type=click.Path(path_type=Path))
@click.argument("image_size", type=int)
@click.argument("batches")
@click.argument("duration_s", type=float)
def main(repository: Path, images: Path, image_size: int, batches: str, duration_s: float) -> None:
    """Print an ``InProcess`` as JSON."""
    click.echo(json.dumps(asdict(_measure(repository, images, image_size, json.loads(batches), duration_s))))


def _measure(repository: Path, images: Path, image_size: int, batches: list[int], duration_s: float) -> InProcess:
    session = open_graph(graph_of(repository))
    version = served_version(repository)
    heads: Any = load_served_module("cluster_head", "heads")
    head = heads.load_head(repository / "cluster_head" / version.folder("cluster_head"))
    load_served_module("cluster_head", "blas_threads").set_blas_threads(1)  # as the model does
    decoder = ThreadDecoder(image_size)
    files = [file.read_bytes() for file in sorted(images.glob("*.jpg"))]
    batch_s: dict[int, list[float]] = {batch: [] for batch in batches}

    def answer(batch: list[bytes]) -> None:
        embeddings, probabilities = run_graph(session, decoder.decode(batch))
        head.answer(embeddings, probabilities, np.full(len(batch), 0.75, np.float32))

    for round_number in range(ROUNDS):
        for batch in batches:
            chosen = (files * -(-batch // len(files)))[:batch]
            answer(chosen)
            began_s = time.monotonic()
            while time.monotonic() - began_s < duration_s / (ROUNDS * len(batches)):
                started_s = time.monotonic()
                answer(chosen[round_number:] + chosen[:round_number])
                batch_s[batch].append(time.monotonic() - started_s)
    decode_s = []
    for file in files * 5:
        started_s = time.monotonic()
        decode_pixels(file, image_size)
        decode_s.append(time.monotonic() - started_s)
    return InProcess(
        image_ms={batch: float(np.median(times)) * 1000 / batch for batch, times in batch_s.items()},
        decode_ms=float(np.median(decode_s)) * 1000,
    )


if __name__ == "__main__":
    main()
