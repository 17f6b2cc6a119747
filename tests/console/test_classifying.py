"""Classifying over REST, and in the original's protocol."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from inference_client import Classify
from tests.console.running import RunningConsole

pytestmark = pytest.mark.slow

NO_IMAGE = b"no image"


@pytest.mark.parametrize("details", [False, True], ids=["plain", "details"])
def test_files_of_a_form_get_what_classify_gives(
    console: RunningConsole, classify: Classify, query_images: list[Path], details: bool
) -> None:
    expected, status = classify(query_images, details=details)
    answer = console.ask(
        "POST", f"/classify?details={details}", files={file.name: file.read_bytes() for file in query_images}
    )
    assert answer.status == status == 200
    assert [entry.keys() for entry in answer.json] == [entry.keys() for entry in expected]
    for entry, wanted in zip(answer.json, expected, strict=True):
        assert entry["Label"] == wanted["Label"]
        assert entry["Probability"] == pytest.approx(wanted["Probability"], abs=1e-5)


def test_json_with_a_bad_image_keeps_the_others(console: RunningConsole, query_images: list[Path]) -> None:
    images = [base64.b64encode(data).decode() for data in (query_images[0].read_bytes(), NO_IMAGE)]
    answer = console.ask("POST", "/classify", json={"images": images})
    assert answer.status == 207
    good, bad = answer.json
    assert good["Label"]
    assert bad["Label"] is None
    assert bad["Error"]


def test_threshold_of_the_request_reaches_the_server(
    console: RunningConsole, classify: Classify, query_images: list[Path]
) -> None:
    ((expected,), _) = classify(query_images[0], sim_thres=0.99, details=True)
    answer = console.ask("POST", "/classify?details=true&sim_thres=0.99", files={"a.jpg": query_images[0].read_bytes()})
    (entry,) = answer.json
    assert entry["Threshold"] == 0.99
    assert entry["Matches"] == expected["Matches"]
