"""The command line of the benchmarks."""

from __future__ import annotations

import os
import platform
import signal
import sys
from importlib.metadata import version
from pathlib import Path

import click

from bench.base_sets import bench_base_sets
from bench.bursts import bench_bursts
from bench.client import bench_client
from bench.console import bench_console
from bench.cores import bench_cores
from bench.decoding import bench_decoding
from bench.embedding import bench_embedding
from bench.errors import BenchError
from bench.mlperf import bench_mlperf
from bench.overhead.benchmark import bench_overhead
from bench.report import Report
from bench.scoring import bench_scoring
from bench.serving import bench_serving
from bench.setting import Setting
from bench.start import bench_start
from inference_client.command_line.options import COMMAND_SETTINGS
from inference_server.errors import ServerError

BENCHMARKS = {
    "serving": bench_serving,
    "decoding": bench_decoding,
    "scoring": bench_scoring,
    "embedding": bench_embedding,
    "overhead": bench_overhead,
    "bursts": bench_bursts,
    "start": bench_start,
    "client": bench_client,
    "mlperf": bench_mlperf,
    "console": bench_console,
    "cores": bench_cores,
    "base sets": bench_base_sets,
}
QUICK = ("serving", "decoding", "scoring")
FOLDER = Path("build/bench")
TERMINATED_EXIT_CODE = 128 + signal.SIGTERM
PACKAGES = ("onnxruntime", "torch", "nvidia-pytriton", "pillow", "numpy", "flask", "litserve")


@click.command(context_settings=COMMAND_SETTINGS)
@click.option("--quick", is_flag=True, help="Run one short round of serving, decoding and scoring: under 3 minutes.")
@click.option(
    "--only",
    type=click.Choice(list(BENCHMARKS)),
    multiple=True,
    help="Run only this benchmark; may be given several times.",
)
@click.option("--rounds", type=click.IntRange(1, 100), default=3, help="Number of times to measure everything.")
def main(quick: bool, only: tuple[str, ...], rounds: int) -> None:
    """Compare the server with this machine's ceiling and with other servers.

    Measures everything in turn, several times. A ratio compares two
    measurements of one round; the table shows the median of all rounds. Prints
    tables, and writes bench.json and bench.png into build/bench/.

    \b
    Examples:
      python -m bench --quick
      python -m bench --only serving --rounds 5

    Exit status: 0 measured (targets met or not), 1 something failed, 2 wrong usage.
    """  # noqa: D301  (click wants the backspace itself)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED_EXIT_CODE))
    setting = Setting(
        folder=FOLDER, rounds=1 if quick else rounds, seconds=4 if quick else 9, classify_images=24 if quick else 500
    )
    report = Report(machine=_describe_machine())
    try:
        setting.prepare()
        for name in only or (QUICK if quick else BENCHMARKS):
            click.echo(f"benchmark: {name}", err=True)
            BENCHMARKS[name](setting, report, quick=quick)
    except (BenchError, ServerError) as error:
        raise click.ClickException(str(error)) from error
    report.show()
    report.write(FOLDER)
    click.echo(f"written: {FOLDER / 'bench.json'}" + (f" and {FOLDER / 'bench.png'}" if report.rows else ""))


def _describe_machine() -> dict[str, object]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


if __name__ == "__main__":
    main(prog_name="python -m bench")
