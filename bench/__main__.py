"""The command line of the benchmarks."""

from __future__ import annotations

import os
import platform
import signal
import sys
from importlib.metadata import version
from pathlib import Path

import click

from inference_server.errors import ServerError

from .cores import bench_cores
from .decoding import bench_decoding
from .embedding import bench_embedding
from .errors import BenchError
from .overhead import bench_overhead, bench_start
from .report import Report
from .scoring import bench_scoring
from .serving import bench_serving
from .setting import Setting

BENCHMARKS = {
    "serving": bench_serving,
    "decoding": bench_decoding,
    "scoring": bench_scoring,
    "embedding": bench_embedding,
    "overhead": bench_overhead,
    "start": bench_start,
    "cores": bench_cores,
}
QUICK = ("serving", "decoding", "scoring")
FOLDER = Path("build/bench")
TERMINATED_EXIT_CODE = 128 + signal.SIGTERM
PACKAGES = ("onnxruntime", "torch", "nvidia-pytriton", "pillow", "numpy", "flask", "litserve")


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--quick", is_flag=True, help="Run one short round of serving, decoding and scoring: under 3 minutes.")
@click.option(
    "--only",
    type=click.Choice(list(BENCHMARKS)),
    multiple=True,
    help="Run only this benchmark; may be given several times.",
)
@click.option(
    "--rounds", type=click.IntRange(1, 100), default=3, show_default=True, help="How often everything is measured."
)
def main(quick: bool, only: tuple[str, ...], rounds: int) -> None:
    """Measure the server against this machine's ceiling and against what a user would pick instead.

    Measures everything in turn, several times. A ratio compares two
    measurements of the same round, and the table shows the median ratio of all
    rounds. Prints tables, and writes bench.json and bench.png into
    build/bench/.

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
