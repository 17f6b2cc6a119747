"""Statuses of the client that need a server in a special situation; all servers are real."""

from __future__ import annotations

import os
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inference_client import Classify
from inference_server.triton.process import running_server


def test_missing_and_wrong_api_keys_are_403_and_the_right_one_answers(
    tmp_path: Path, small_clustering: Path, query_images: list[Path]
) -> None:
    arguments = ["--http-restricted-api=inference:X-API-Key=secret"]
    with running_server(small_clustering, log=tmp_path / "log", arguments=arguments) as server:
        for key in (None, "wrong"):
            with Classify(server.url, api_key=key) as classify:
                results, status = classify(query_images)
            assert status == 403
            assert set(results) == {"error"}
        with Classify(server.url, api_key="secret", client_id="ward 7") as classify:
            assert classify(query_images)[1] == 200


def test_stopped_server_is_504_and_dead_one_503(
    tmp_path: Path, small_clustering: Path, query_images: list[Path]
) -> None:
    with (
        running_server(small_clustering, log=tmp_path / "log") as server,
        Classify(server.url, timeout_s=2) as classify,
    ):
        assert classify(query_images[0])[1] == 200
        server.process.send_signal(signal.SIGSTOP)
        results, status = classify(query_images[0])
        server.process.send_signal(signal.SIGCONT)
        assert status == 504
        assert "timeout_s=2" in results["error"]
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
        results, status = classify(query_images[0])
        assert status == 503
        assert server.url.removeprefix("http://") in results["error"]


def test_full_queue_is_503_for_some_and_never_costs_another_its_result(
    tmp_path: Path, small_clustering: Path, query_images: list[Path]
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(small_clustering, repository)
    for model in ("preprocess", "classifier", "cluster_head"):
        config = repository / model / "config.pbtxt"
        text, queues = re.subn(r"max_queue_size: \d+", "max_queue_size: 1", config.read_text())
        assert queues == 1, model
        config.write_text(text)
    with (
        running_server(repository, log=tmp_path / "log") as server,
        Classify(server.url, timeout_s=1.5) as classify,
        ThreadPoolExecutor(40) as threads,
    ):
        answers = list(threads.map(lambda _: classify(query_images * 2), range(40)))
    statuses = {status for _, status in answers}
    assert 503 in statuses
    assert statuses <= {200, 207, 503, 504}
    for results, status in answers:
        assert (set(results) == {"error"}) if status in (503, 504) else len(results) == 2 * len(query_images)


def test_image_larger_than_a_request_may_be_goes_alone(
    clustering_server: object, classify: Classify, query_images: list[Path], tmp_path: Path
) -> None:
    from PIL import Image

    large = tmp_path / "large.bmp"
    Image.open(query_images[0]).resize((4000, 3000)).save(large)
    assert large.stat().st_size > 32 * 1024 * 1024
    results, status = classify([query_images[0], large, query_images[1]])
    assert status == 200
    assert len(results) == 3
