"""The original's client against ``POST /``, and against a server as the original was."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from inference_client import Classify
from inference_server.triton.process import RunningServer, free_ports, start_child, stop
from tests.conftest import SMALL, Trained
from tests.console.original_client import OriginalClient, as_jpeg
from tests.console.running import RunningConsole, running_console

pytestmark = pytest.mark.slow

NO_IMAGE = base64.b64encode(b"no image").decode()


@pytest.fixture(scope="module")
def original(console: RunningConsole) -> OriginalClient:
    return OriginalClient(console.url)


@pytest.fixture(scope="module")
def classification_console(workspace: Path, classification_server: RunningServer) -> Iterator[RunningConsole]:
    with running_console(workspace / "classification-console.log", "-ip", classification_server.url) as running:
        yield running


def require_parity(ours: tuple[Any, int], expected: tuple[Any, int]) -> None:
    (entries, status), (wanted_entries, wanted_status) = ours, expected
    assert status == wanted_status
    assert [entry.keys() for entry in entries] == [entry.keys() for entry in wanted_entries]
    for entry, wanted in zip(entries, wanted_entries, strict=True):
        assert entry["Label"] == wanted["Label"]
        assert entry["Probability"] == pytest.approx(wanted["Probability"], abs=1e-5)
        assert entry.get("Error") == wanted.get("Error")


def test_clustering_answers_what_classify_answers(
    original: OriginalClient, classify: Classify, query_images: list[Path]
) -> None:
    require_parity(original(query_images), classify([as_jpeg(path) for path in query_images]))


def test_classification_answers_what_classify_answers(
    classification_console: RunningConsole, classification_server: RunningServer, query_images: list[Path]
) -> None:
    with Classify(classification_server.url) as classify:
        expected = classify([as_jpeg(path) for path in query_images])
    require_parity(OriginalClient(classification_console.url)(query_images), expected)


def test_more_images_than_one_batch_keep_their_order(
    original: OriginalClient, classify: Classify, query_images: list[Path]
) -> None:
    many = (query_images * 20)[:70]
    require_parity(original(many), classify([as_jpeg(path) for path in many]))


@pytest.mark.parametrize(("bad", "status"), [((0,), 207), ((1, 2), 207), ((0, 1, 2), 400)])
def test_undecodable_images_have_their_reasons(
    original: OriginalClient, classify: Classify, query_images: list[Path], bad: tuple[int, ...], status: int
) -> None:
    images = [b"no image" if place in bad else as_jpeg(query_images[place]) for place in range(3)]
    answer = original.post([base64.b64encode(image).decode() for image in images])
    assert answer[1] == status
    require_parity(answer, classify(images))


def test_empty_list_is_answered_with_an_empty_list(original: OriginalClient) -> None:
    assert original([]) == ([], 200)


def test_text_that_is_no_base64_is_an_undecodable_image(original: OriginalClient) -> None:
    (entry,), status = original.post(["%%%"])
    assert status == 400
    assert entry["Label"] is None
    assert entry["Error"]


def test_server_that_is_away_is_an_error_with_its_message(workspace: Path, query_images: list[Path]) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with running_console(workspace / "away.log", "-ip", url) as running, Classify(url) as classify:
        answer, status = OriginalClient(running.url)(query_images[:1])
        expected, expected_status = classify(query_images[:1])
    assert status == expected_status == 503
    assert answer["error"] == answer["detail"] == expected["error"]


def test_same_client_works_on_a_server_as_the_original_was(
    small: Trained, tmp_path: Path, classification_console: RunningConsole, query_images: list[Path]
) -> None:
    pytest.importorskip("flask", reason="the original's design needs Flask: pip install classify-triton[bench]")
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "bench.baselines.flask_server", "--resources", str(small.folder)]
    with (tmp_path / "log").open("wb") as output:
        process = start_child([*command, "--image_size", str(SMALL), "--port", str(port)], output=output)
    try:
        flask, flask_status = _when_ready(OriginalClient(f"http://127.0.0.1:{port}"), query_images, process)
    finally:
        stop(process)
    ours, status = OriginalClient(classification_console.url)(query_images)
    assert status == flask_status == 200
    assert [entry.keys() for entry in ours] == [entry.keys() for entry in flask]
    for entry, wanted in zip(ours, flask, strict=True):
        assert entry["Label"] == wanted["Label"]
        assert entry["Probability"] == pytest.approx(wanted["Probability"], abs=1e-3)


def _when_ready(client: OriginalClient, paths: list[Path], process: subprocess.Popen[bytes]) -> tuple[Any, int]:
    deadline_s = time.monotonic() + 60
    while True:
        try:
            return client(paths)
        except urllib.error.URLError:
            assert process.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
