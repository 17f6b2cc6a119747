"""Measures what the console adds to ``Classify``: the same image, in turn, through both."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.report import Figure, Report
from bench.setting import IMAGE_SIZE, Setting
from bench.small_network import SMALL_SIDE, export_small, small_images
from inference_client import Classify
from inference_server.triton.process import free_ports, running_server, start_child, stop

START_TIMEOUT_S = 60.0
TARGET_MS = 5.0
_BOUNDARY = "a-boundary-that-no-file-holds"


def bench_console(setting: Setting, report: Report, *, quick: bool) -> None:
    """Compare POST /classify over one kept connection with ``Classify``, at S = 64 and at S = 384."""
    small_image = small_images(setting)[0]
    for size, repository, image, requests in (
        (SMALL_SIDE, export_small(setting), small_image, 100 if quick else 300),
        (IMAGE_SIZE, setting.export("fp32"), setting.queries[0], 20 if quick else 60),
    ):
        values: dict[str, list[float]] = {}
        notes: list[str] = []
        log = setting.folder / "console-server.log"
        with running_server(repository, log=log) as server, _console(server.url, setting.folder) as port:
            for _ in range(setting.rounds):
                times = _measure(server.url, port, image.read_bytes(), requests)
                notes = [f"{name}: p50 {_p50(each):.2f} ms, p99 {_p99(each):.2f} ms" for name, each in times.items()]
                for name in ("multipart", "JSON"):
                    for percentile, of in (("p50", _p50), ("p99", _p99)):
                        values.setdefault(f"{name}, {percentile}", []).append(of(times[name]) - of(times["Classify"]))
        report.figures += [
            Figure(
                name=f"POST /classify over Classify, S = {size}, {name}",
                values=each,
                unit="ms",
                at_most=TARGET_MS if "p50" in name else None,
                notes=notes if name == "multipart, p50" else (),
            )
            for name, each in values.items()
        ]


@contextlib.contextmanager
def _console(server_url: str, folder: Path) -> Iterator[int]:
    """Run a console in front of a server; yield its port."""
    (port,) = free_ports(1)
    log = folder / "console.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "inference_console", "-ip", server_url, "--port", str(port)]
        process = start_child(command, output=output)
    try:
        _wait_until_ready(process, log)
        yield port
    finally:
        stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while b"console at" not in log.read_bytes():
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise BenchError(f"the console did not start:\n{log.read_text()}")
        time.sleep(0.05)


def _measure(server_url: str, port: int, image: bytes, requests: int) -> dict[str, list[float]]:
    """Return the times of requests in ms, by the way that they went."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    text = json.dumps({"images": [base64.b64encode(image).decode()]}).encode()
    with contextlib.closing(connection), Classify(server_url) as classify:
        ways: dict[str, Callable[[], Any]] = {
            "Classify": lambda: classify(image),
            "multipart": lambda: _post(connection, _form(image), f"multipart/form-data; boundary={_BOUNDARY}"),
            "JSON": lambda: _post(connection, text, "application/json"),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(requests + 5):
            for name, way in ways.items():
                began_s = time.perf_counter()
                way()
                if number >= 5:  # noqa: PLR2004 - the first ones open connections
                    times[name].append(1000 * (time.perf_counter() - began_s))
    return times


def _post(connection: http.client.HTTPConnection, body: bytes, media_type: str) -> None:
    connection.request("POST", "/classify", body, {"Content-Type": media_type})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != http.HTTPStatus.OK:
        raise BenchError(f"POST /classify was answered with {answer.status}: {said.decode()}")


def _form(image: bytes) -> bytes:
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    return head.encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()


def _p50(times: Sequence[float]) -> float:
    return statistics.median(times)


def _p99(times: Sequence[float]) -> float:
    return statistics.quantiles(times, n=100)[98]
