"""The benchmarks' arithmetic and input: a figure must be able to miss its target."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path

import pytest
from PIL import Image

from bench.errors import BenchError
from bench.images import SIZE, TARGET_BYTES, write_images
from bench.input_data import encode_input
from bench.load import run_load
from bench.loadgen import run_offline, run_server
from bench.mlperf import find_highest
from bench.report import Figure, Report, Row, merge
from bench.stand_in import MAX_BATCH_SIZE, running_stand_in
from inference_client import Classify
from inference_server.triton.process import RunningServer
from tests.resources import write_faces


@pytest.mark.parametrize(
    ("values", "at_least", "at_most", "verdict"),
    [
        ([0.9, 0.95, 0.99], 0.95, None, "met"),
        ([0.9, 0.94, 0.99], 0.95, None, "MISSED"),
        ([1.0, 1.1, 1.2], None, 1.1, "met"),
        ([1.0, 1.11, 1.2], None, 1.1, "MISSED"),
        ([1.0], None, None, ""),
    ],
)
def test_verdict_is_that_of_the_median(
    values: list[float], at_least: float | None, at_most: float | None, verdict: str
) -> None:
    assert Figure(name="ratio", values=values, at_least=at_least, at_most=at_most).verdict == verdict


def test_rows_of_several_rounds_become_their_medians_and_the_largest_memory() -> None:
    rows = [Row(name="server", clients=4, throughput=value, p50_ms=10 * value, peak_mb=value) for value in (1, 5, 3)]
    assert merge(rows) == Row(name="server", clients=4, throughput=3, p50_ms=30, peak_mb=5)


@pytest.mark.slow
def test_images_are_different_and_of_the_size_that_users_send(tmp_path: Path) -> None:
    files = write_images(tmp_path)
    contents = [file.read_bytes() for file in files]
    assert len(set(contents)) == len(files)
    for file, content in zip(files, contents, strict=True):
        assert TARGET_BYTES * 0.85 <= len(content) <= TARGET_BYTES
        with Image.open(file) as image:
            assert image.size == SIZE


def test_perf_analyzers_input_holds_each_files_length_and_bytes() -> None:
    elements = json.loads(encode_input([b"one", b"three"]))["data"]
    decoded = [base64.b64decode(element["IMAGE"]["b64"]) for element in elements]
    assert decoded == [struct.pack("<I", 3) + b"one", struct.pack("<I", 5) + b"three"]


def test_load_counts_a_real_servers_answers_and_stops_at_a_refusal(
    clustering_server: RunningServer, tmp_path: Path
) -> None:
    url = f"{clustering_server.url}/v2/models/ensemble/infer"
    (file,) = write_faces(tmp_path, [1], "x")
    text = base64.b64encode(file.read_bytes()).decode()
    image = {"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": [text]}
    load = run_load(url, [json.dumps({"inputs": [image]}).encode()], clients=3, duration_s=0.5)
    assert load.images >= 3
    assert load.throughput > 0
    assert load.p50_ms <= load.p95_ms <= load.p99_ms
    with pytest.raises(BenchError, match="answered 400"):
        run_load(url, [json.dumps({"inputs": []}).encode()], clients=2, duration_s=0.5)


def test_stand_in_answers_every_image_of_a_request() -> None:
    with running_stand_in() as url, Classify(url) as classify:
        results, status = classify([b"image"] * (MAX_BATCH_SIZE + 1))
    assert status == 200
    assert results == [{"Label": "autistic", "Probability": 0.75}] * (MAX_BATCH_SIZE + 1)


@pytest.mark.parametrize(("sought", "found"), [(60, 57.5), (30, 27.5), (20, 0)])
def test_search_finds_the_highest_rate_that_passes(sought: float, found: float) -> None:
    assert find_highest(lambda rate: rate <= sought, lowest=20, limit=80, probes=4) == found


def test_loadgen_judges_a_server_by_its_latency(tmp_path: Path) -> None:
    pytest.importorskip("mlperf_loadgen", reason="needs MLPerf's load generator: pip install -e '.[bench]'")
    files = [b"one", b"three"]
    with running_stand_in() as url:
        offline = run_offline(url, files, tmp_path / "offline", expected_rate=500, duration_s=0.1)
        fast, slow = (
            run_server(
                url, files, tmp_path / f"{bound_ms}", rate=2000, bound_ms=bound_ms, duration_s=0.1, least_queries=500
            )
            for bound_ms in (5000, 0.001)
        )
    assert offline.throughput > 0
    assert fast.valid
    assert fast.queries >= 500
    assert 0 < fast.p50_ms <= fast.p95_ms <= fast.p99_ms
    assert not slow.valid


def test_report_is_written_as_json_and_names_missed_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(machine={"cores": 2}, figures=[Figure(name="ratio", values=[0.5], at_least=0.9)])
    report.show()
    report.write(tmp_path)
    assert "MISSED" in capsys.readouterr().out
    (figure,) = json.loads((tmp_path / "bench.json").read_text())["figures"]
    assert (figure["median"], figure["verdict"]) == (0.5, "MISSED")
