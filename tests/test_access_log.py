"""The access log: a line of JSON on standard output for each request, and nothing else there."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import select
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inference_client import Classify
from inference_export import ExportOptions
from inference_export.repository.configs import parse_config
from inference_export.template import load_served_module, template_directory
from inference_server.addresses import LOOPBACK
from inference_server.triton.process import free_ports, stop
from tests.corpus import progressive_jpeg, webp_canvas

MODULE = template_directory() / "preprocess" / "1" / "access_log.py"
access_log = load_served_module("preprocess", "access_log")
parameters = load_served_module("preprocess", "parameters")
reasons = load_served_module("preprocess", "reasons")
START_TIMEOUT_S = 60.0
LINES_TIMEOUT_S = 30.0


@dataclass(frozen=True, kw_only=True)
class LoggingServer:
    """A tritonserver with separate outputs."""

    url: str
    stdout: Path
    stderr: Path

    def lines(self, count: int) -> list[dict[str, Any]]:
        """The last lines of the access log, once there are ``count``; every line is JSON."""
        deadline_s = time.monotonic() + LINES_TIMEOUT_S
        while len(lines := self.stdout.read_text(encoding="ascii").splitlines()) < count:
            assert time.monotonic() < deadline_s, lines
            time.sleep(0.02)
        return [json.loads(line) for line in lines]


@contextlib.contextmanager
def _logging_server(
    repository: Path, folder: Path, *, stdout: int | None = None, before: tuple[str, ...] = ()
) -> Iterator[LoggingServer]:
    http, metrics = free_ports(2)
    url = f"http://{LOOPBACK}:{http}"
    server = LoggingServer(url=url, stdout=folder / "stdout", stderr=folder / "stderr")
    command = [*before, sys.executable, "-m", "inference_server.triton.command",
               f"--model-repository={repository}", f"--http-port={http}",
               "--allow-grpc=false", f"--metrics-port={metrics}"]  # fmt: skip
    with server.stdout.open("wb") as output, server.stderr.open("wb") as errors:
        process = subprocess.Popen(
            command, stdout=output if stdout is None else stdout, stderr=errors, start_new_session=True
        )
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/v2/health/ready", timeout=2):
                break
            assert process.poll() is None, server.stderr.read_text()
            assert time.monotonic() < deadline_s, server.stderr.read_text()
            time.sleep(0.1)
        yield server
    finally:
        stop(process)


@pytest.fixture(scope="module")
def server(small_clustering: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoggingServer]:
    with _logging_server(small_clustering, tmp_path_factory.mktemp("access")) as running:
        yield running


def _infer(server: LoggingServer, file: bytes, *, request_id: str = "", **parameters: Any) -> int:
    inputs = [{"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": [b64encode(file).decode()]}]
    body = json.dumps({"id": request_id, "inputs": inputs, "parameters": parameters}).encode()
    try:
        with urllib.request.urlopen(f"{server.url}/v2/models/ensemble/infer", body, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_answered_request_leaves_one_line_with_its_threshold_and_label_counts(
    server: LoggingServer, query_images: list[Path]
) -> None:
    before = len(server.lines(0))
    with Classify(server.url, client_id="ward 7") as classify:
        results, _ = classify([*query_images[:2], b"no image"], sim_thres=0.3)
    *earlier, line = server.lines(before + 1)
    assert len(earlier) == before
    given = [result["Label"] for result in results[:2]]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "status": "ok",
        "client": "ward 7",
        "model_version": 1,
        "mode": "clustering",
        "sim_thres": 0.3,
        "threshold": 0.3,
        "images": 3,
        "undecodable": {"unsupported": 1},
        "labels": {label: given.count(label) for label in given},
    }


@pytest.mark.parametrize(
    ("file", "parameters", "says"),
    [
        pytest.param(b"no image", {}, {"refused": "no_decodable_image", "undecodable": {"unsupported": 1}}, id="image"),
        pytest.param(b"no image", {"sim_thres": 7}, {"refused": "threshold"}, id="threshold"),
    ],
)
def test_refused_request_leaves_one_line_that_says_why(
    server: LoggingServer, file: bytes, parameters: dict[str, Any], says: dict[str, Any]
) -> None:
    before = len(server.lines(0))
    assert _infer(server, file, request_id="r1", **parameters, **{"x-client-id": "ward 8"}) == 400
    *earlier, line = server.lines(before + 1)
    assert len(earlier) == before
    del line["time"]
    expected = {"status": "refused", "client": "ward 8", "request_id": "r1", "model_version": 1, "images": 1}
    assert line == {**expected, **says}


def test_sender_can_neither_forge_a_line_nor_make_one_long(server: LoggingServer, query_images: list[Path]) -> None:
    forged = '"}\n{"status":"ok","client":"forged"}\r\u2028\x1b[2J'
    before = len(server.lines(0))
    assert (
        _infer(server, query_images[0].read_bytes(), request_id=forged + "x" * 10_000, **{"x-client-id": forged}) == 200
    )
    *earlier, line = server.lines(before + 1)
    assert len(earlier) == before
    assert line["client"] == "unusable"
    assert line["request_id"] == (forged + "x" * 10_000)[: access_log.LONGEST_REQUEST_ID]
    raw = server.stdout.read_bytes().splitlines()[-1]
    assert raw.isascii()
    assert b"\x1b" not in raw


def test_requests_at_the_same_time_leave_a_whole_line_each(server: LoggingServer, query_images: list[Path]) -> None:
    before = len(server.lines(0))
    files: list[Path | bytes] = [*query_images, b"no image"] * 8
    with Classify(server.url, client_id="many") as classify:
        for _ in range(3):
            classify(files)
    requests = 3 * math.ceil(len(files) / ExportOptions.max_batch_size)
    lines = server.lines(before + requests)[before:]
    assert sum(line["images"] for line in lines) == 3 * len(files)
    assert {line["client"] for line in lines} == {"many"}


def test_closed_standard_output_ends_the_log_with_one_warning_and_costs_no_answer(
    small_clustering: Path, query_images: list[Path], tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    with _logging_server(small_clustering, tmp_path, stdout=writing) as server:
        os.close(writing)
        os.close(reading)
        for _ in range(5):
            assert _infer(server, query_images[0].read_bytes()) == 200
            assert _infer(server, b"no image") == 400
            time.sleep(0.1)  # each is recorded by itself
        warnings = [line for line in server.stderr.read_text().splitlines() if "access log: " in line]
    # One from each instance that had something to write.
    groups = [
        parse_config((small_clustering / model / "config.pbtxt").read_text()).instance_group[0]
        for model in ("preprocess", "cluster_head")
    ]
    assert 2 <= len(warnings) <= sum(group.count for group in groups), warnings
    assert all("Broken pipe" in line and "it ends here" in line for line in warnings)


def _fill(descriptor: int) -> int:
    """Fill a pipe whose reader sleeps."""
    os.set_blocking(descriptor, False)
    written = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            written += os.write(descriptor, b"x" * select.PIPE_BUF)
    os.set_blocking(descriptor, True)
    return written


def test_slow_reader_stalls_nobody_and_dropped_lines_are_counted() -> None:
    reading, writing = os.pipe()
    before = _fill(writing)
    log = access_log.AccessLog(pytest.fail, descriptor=writing)
    line = b"y" * 99 + b"\n"
    lost = sum(log.write([line]) for _ in range(access_log.MOST_WAITING + 500))
    in_hand = access_log.LONGEST_LINE // len(line)  # lines that were taken from the queue, to be written in one piece
    assert 500 - in_hand - 1 <= lost <= 500
    taken = b""
    while len(taken) < before + (access_log.MOST_WAITING + 500 - lost) * len(line):
        taken += os.read(reading, 2**16)  # awake again
    log.close()
    assert taken[before:].splitlines() == [line.strip()] * (access_log.MOST_WAITING + 500 - lost)
    os.close(reading)
    os.close(writing)


def test_ending_waits_for_a_sleeping_reader_only_so_long() -> None:
    script = f"""import sys
sys.dont_write_bytecode = True
sys.path.insert(0, {str(MODULE.parent)!r})
from access_log import AccessLog
log = AccessLog(print)
log.write([b"x" * 4096] * 100)
log.close()
sys.stderr.write("ended")"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.wait(timeout=30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b"ended"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def _entry(**fields: Any) -> bytes:
    said = parameters.Parameters("c", "", parameters.NotGiven())
    line: bytes = access_log.entry(said, time_s=0.0, model_version=1, reasons=(), **fields)
    return line


def test_line_with_many_labels_stays_short_enough_for_a_pipe_without_them() -> None:
    assert json.loads(_entry(images=600, labels=["a"] * 600))["labels"] == {"a": 600}
    many = _entry(images=600, labels=[f"class {number:05d}" for number in range(600)])
    assert len(many) <= select.PIPE_BUF
    assert json.loads(many)["images"] == 600
    assert "labels" not in json.loads(many)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"text", "unsupported", id="text"),
        pytest.param(b"\xff\xd8\xff\xe0 cut", "broken", id="header"),
        pytest.param(webp_canvas(9000, 9000), "too_large", id="canvas"),
        pytest.param(progressive_jpeg(800, (64, 64)), "too_slow", id="scans"),
        pytest.param(progressive_jpeg(9, (64, 64))[:-20], "broken", id="truncated"),
    ],
)
def test_reasons_have_codes_of_a_closed_set(file: bytes, name: str) -> None:
    from inference_export.base_set.decoding import open_decoder

    with open_decoder(64, "exact") as decoder:
        errors: list[Any] = decoder.decode([file])[1]
    assert errors[0].code == name
    assert name in reasons.UNDECODABLE


def test_reason_reaches_the_next_model_whole_and_made_up_ones_are_other() -> None:
    reason = reasons.Reason("too_slow", "too slow to decode: x")
    unpacked = reasons.Reason.unpack(reason.pack())
    assert (unpacked.code, unpacked) == ("too_slow", "too slow to decode: x")
    assert reasons.Reason.unpack("").pack() == ""
    for text in ("x" * 10_000, "mine\tmine: x", "too_slow"):
        made_up = reasons.Reason.unpack(text)
        assert (made_up.code, made_up) == ("other", text)


def test_closed_standard_output_is_no_other_file_that_the_log_is_written_to(
    small_clustering: Path, query_images: list[Path], tmp_path: Path
) -> None:
    with _logging_server(small_clustering, tmp_path, before=("sh", "-c", 'exec "$@" >&-', "sh")) as server:
        with Classify(server.url, timeout_s=20) as classify:
            assert [classify(query_images[0])[1] for _ in range(5)] == [200] * 5
        assert server.stdout.read_bytes() == b""
