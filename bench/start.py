"""Measures the start time of the server and of the client."""

from __future__ import annotations

import subprocess
import sys
import time

from bench.report import Figure, Report
from bench.setting import Setting
from inference_server.triton.process import running_server


def bench_start(setting: Setting, report: Report, *, quick: bool) -> None:
    """Measure how long tritonserver takes to be ready, with the full network, and the client to be imported."""
    repository = setting.export("fp32")
    times = []
    for _ in range(2 if quick else 3):
        began_s = time.monotonic()
        with running_server(repository, log=setting.folder / "start.log"):
            times.append(time.monotonic() - began_s)
    imports = [_run_python_s("import inference_client") - _run_python_s("pass") for _ in range(3 if quick else 7)]
    report.figures += [
        Figure(name="tritonserver, start to ready", values=times, unit="s", at_most=10),
        Figure(name="import inference_client", values=imports, unit="s", at_most=0.5),
    ]


def _run_python_s(code: str) -> float:
    """Return the seconds that a fresh interpreter takes to run code."""
    began_s = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - began_s
