"""The ceiling: one process that only decodes and runs the network, as fast as this machine can."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from bench.in_process import ThreadDecoder
from inference_export.base_set.decoding import decode_pixels
from inference_export.onnx_session import open_graph, run_graph

BATCH_SIZES = (1, 4, 8, 16)


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """The measurements of the ceiling.

    Attributes:
        throughput: Images per second, by batch size.
        latency_ms: Median time to decode, resize and classify a single image, in milliseconds.
        cpu_s_per_image: CPU time per image at the best batch size, in seconds.
        peak_mb: Largest resident memory of the process, in MB.
    """

    throughput: dict[int, float]
    latency_ms: float
    cpu_s_per_image: float
    peak_mb: float

    @property
    def best(self) -> float:
        """Images per second at the best batch size."""
        return max(self.throughput.values())


def measure_apart(graph: Path, images: Path, image_size: int, duration_s: float) -> Ceiling:
    """Measure in a separate process."""
    command = [
        sys.executable, "-m", "bench.ceiling", "--graph", str(graph), "--images", str(images),
        "--image_size", str(image_size), "--duration_s", str(duration_s),
    ]  # fmt: skip
    ceiling = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return Ceiling(**{**ceiling, "throughput": {int(size): value for size, value in ceiling["throughput"].items()}})


@click.command()
@click.option("--graph", type=click.Path(path_type=Path), required=True)
@click.option("--images", type=click.Path(path_type=Path), required=True)
@click.option("--image_size", type=int, required=True)
@click.option("--duration_s", type=float, required=True)
def main(graph: Path, images: Path, image_size: int, duration_s: float) -> None:
    """Print a ``Ceiling`` as JSON."""
    click.echo(json.dumps(asdict(measure(graph, images, image_size, duration_s))))


def measure(graph: Path, images: Path, image_size: int, duration_s: float) -> Ceiling:
    """Measure for about ``duration_s`` seconds in total."""
    session = open_graph(graph)
    decoder = ThreadDecoder(image_size)
    files = [file.read_bytes() for file in sorted(images.glob("*.jpg"))]
    run_graph(session, decoder.decode(files[:1]))
    share_s = duration_s / (len(BATCH_SIZES) + 1)
    throughput, cpu_s = {}, {}
    for size in BATCH_SIZES:
        began_s, began_cpu_s, done = time.monotonic(), time.process_time(), 0
        while time.monotonic() - began_s < share_s:
            batch = [files[(done + row) % len(files)] for row in range(size)]
            run_graph(session, decoder.decode(batch))
            done += size
        throughput[size] = done / (time.monotonic() - began_s)
        cpu_s[size] = (time.process_time() - began_cpu_s) / done
    latencies: list[float] = []
    began_s = time.monotonic()
    while time.monotonic() - began_s < share_s or not latencies:
        started_s = time.monotonic()
        run_graph(session, decode_pixels(files[len(latencies) % len(files)], image_size)[None])
        latencies.append(time.monotonic() - started_s)
    return Ceiling(
        throughput=throughput,
        latency_ms=float(np.median(latencies)) * 1000,
        cpu_s_per_image=cpu_s[max(throughput, key=throughput.__getitem__)],
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    )


if __name__ == "__main__":
    main()
