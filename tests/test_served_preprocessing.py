"""A network's preprocessing in an export, through the real server, and in what looks at a repository."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from inference_client import Classify
from inference_export.changing import BaseSetOptions, prepare_change
from inference_export.command import main as export_main
from inference_export.consequences import find_doubts
from inference_export.export_options import ExportOptions
from inference_export.inspection.command import main as inspect_main
from inference_export.repository.provenance import what_changed
from inference_export.repository.reading import read_export
from inference_server.base_set.report import check_json, check_text
from inference_server.triton.process import RunningServer, running_server
from tests import preprocessing_parity, tiny_network
from tests.metrics import settled_metrics
from tests.resources import PHOTOGRAPHS
from tests.test_served_images import _post

NAMES = ("chelsea", "coffee", "rocket", "astronaut")


def _export(folder: Path, *arguments: object, described: dict[str, Any] | None = None) -> Result:
    if described is not None:
        (folder / "trained" / "preprocessing.json").write_text(json.dumps(described))
    given = (
        "-r",
        folder / "trained",
        "--network",
        tiny_network.NETWORK,
        "--model_repository",
        folder / "m",
        *arguments,
    )
    return CliRunner().invoke(export_main, list(map(str, given)), catch_exceptions=False)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    tiny_network.write_tiny_resources(tmp_path / "trained")
    return tmp_path


def _write_base(folder: Path, *, rotated: tuple[str, ...] = ("coffee",)) -> Path:
    for number, name in enumerate(NAMES):
        image = Image.open(next(PHOTOGRAPHS.glob(f"{name}.*"))).convert("RGB").resize((60, 40))
        exif = Image.Exif()
        exif[preprocessing_parity.ORIENTATION_TAG] = 6 if name in rotated else 1
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        image.save(folder / "ab"[number % 2] / f"{name}.jpg", exif=exif)
    return folder


@pytest.mark.slow
def test_served_probabilities_are_pytorchs_on_torchvisions_pixels(tmp_path: Path) -> None:
    files = preprocessing_parity.write_photographs(tmp_path)
    row = preprocessing_parity.compare(files, preprocessing_parity.describe("upright", "crop", "bicubic"), tmp_path)
    assert row.levels <= 1
    assert (row.labels, row.notes) == (len(files), 0)
    assert row.equal_pixels < 1e-5
    assert row.end_to_end < 1e-4


@pytest.fixture(scope="module")
def as_stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server whose network takes images as they are stored."""
    folder = tmp_path_factory.mktemp("as_stored")
    tiny_network.write_tiny_resources(folder / "trained")
    assert _export(folder).exit_code == 0
    with running_server(folder / "m", log=folder / "log") as server:
        yield server


@pytest.mark.slow
def test_rotated_image_has_a_note_in_every_form_of_answer(as_stored: RunningServer, tmp_path: Path) -> None:
    base = _write_base(tmp_path)
    upright, rotated = base / "a" / "chelsea.jpg", base / "b" / "coffee.jpg"
    texts = [base64.b64encode(file.read_bytes()).decode() for file in (upright, rotated)]
    image = {"name": "IMAGE", "shape": [3, 1], "datatype": "BYTES", "data": [*texts, "bad"]}
    alone = {"inputs": [image], "outputs": [{"name": "NOTE"}]}
    for body in (alone, {"inputs": [image]}):
        status, answer = _post(f"{as_stored.url}/v2/models/ensemble/infer", body)
        assert status == 200
        (note,) = (output for output in answer["outputs"] if output["name"] == "NOTE")
        assert (note["shape"], note["data"][0], note["data"][2]) == ([3, 1], "", "")
        assert note["data"][1].startswith("classified as stored, not upright: to see it upright, turn it by 90 degrees")
    status, generated = _post(f"{as_stored.url}/v2/models/ensemble/generate", {"IMAGE": texts[1]})
    assert (status, generated["NOTE"]) == (200, note["data"][1])
    before = _count_rotated(as_stored)
    with Classify(as_stored.url) as classify:
        (first, second, bad), status_code = classify([upright, rotated, b"bad"], details=True)
    assert status_code == 207
    assert [entry.get("Note") for entry in (first, second, bad)] == [None, note["data"][1], None]
    assert _count_rotated(as_stored) == before + 1


def _count_rotated(server: RunningServer) -> float:
    lines = settled_metrics(server.metrics_url).splitlines()
    (value,) = (line.split()[-1] for line in lines if line.startswith("classify_rotated_images_total"))
    return float(value)


def test_summary_and_inspection_say_what_was_chosen_and_where_it_was_said(here: Path) -> None:
    described = {"resize": "crop", "crop_fraction": 0.8, "orientation": "upright", "interpolation": "bicubic"}
    result = _export(here, described=described)
    assert result.exit_code == 0, result.output
    chosen = (
        "shorter side to 40, then the middle 32 x 32; bicubic; upright; rgb; mean 0.485, 0.456, 0.406; "
        "std 0.229, 0.224, 0.225"
    )
    assert f"preprocessing     {chosen}" in result.stdout
    assert f"from {here / 'trained' / 'preprocessing.json'} and the network's preprocessing" in result.stdout
    inspected = CliRunner().invoke(inspect_main, [str(here / "m")], catch_exceptions=False)
    assert f"preprocessing     {chosen}" in inspected.stdout
    inspected = CliRunner().invoke(inspect_main, [str(here / "m"), "--json"])
    exported = json.loads(inspected.stdout)["preprocessing"]
    assert (exported["resize"], exported["resize_size"], exported["orientation"]) == ("crop", 40, "upright")
    # What a version says of itself describes the same export again.
    again = _export(here, described=exported)
    assert f"preprocessing     {chosen}" in again.stdout


def test_changed_file_is_a_reason_to_export_again(here: Path) -> None:
    assert _export(here, described={"orientation": "upright"}).exit_code == 0
    options = ExportOptions(resources=here / "trained", network=tiny_network.NETWORK, model_repository=here / "m")
    export = read_export(here / "m")
    assert export is not None
    assert what_changed(export.provenance, options) == []
    (here / "trained" / "preprocessing.json").write_text('{"orientation": "as_stored"}')
    assert what_changed(export.provenance, options) == ["resources"]
    (here / "trained" / "preprocessing.json").unlink()
    assert what_changed(export.provenance, options) == ["resources"]


def test_base_embeddings_of_another_geometry_are_refused(here: Path) -> None:
    assert _export(here, "-data", _write_base(here / "base")).exit_code == 0
    settings = here / "m" / "preprocess" / "1" / "settings.json"
    values = json.loads(settings.read_text())
    values["geometry"]["orientation"] = "upright"
    settings.write_text(json.dumps(values))
    inspected = CliRunner().invoke(inspect_main, [str(here / "m")])
    assert inspected.exit_code == 1
    assert "another preprocessing (files and geometry" in inspected.output


def test_base_images_that_are_not_stored_upright_are_noted_each_time(here: Path) -> None:
    base = _write_base(here / "base")
    for _ in range(2):  # the second time, the embeddings are cached
        result = _export(here, "-data", base)
        assert "are taken as stored: 1. If the network" in result.stdout
        assert "\n  b/coffee.jpg" in result.stdout
    _write_base(base, rotated=("coffee", "rocket"))
    with prepare_change(BaseSetOptions(model_repository=here / "m", base_data=base)) as change:
        doubts = find_doubts(change)
        assert "a/rocket.jpg" in check_json(change, doubts, [], None)["rotated"]
        assert "taken as stored" in check_text(change, doubts, [], None)
        assert any("a/rocket.jpg" in note for note in change.notes)


def test_base_images_of_an_upright_network_are_turned_and_not_noted(here: Path) -> None:
    result = _export(here, "-data", _write_base(here / "base"), described={"orientation": "upright"})
    assert result.exit_code == 0, result.output
    assert "taken as stored" not in result.stdout


def test_named_file_replaces_the_networks_own_preprocessing(here: Path) -> None:
    (here / "other.json").write_text('{"image_size": 48, "channels": "bgr"}')
    result = _export(here, "--preprocessing", here / "other.json")
    assert "squash to 48 x 48; bilinear; as stored; bgr" in result.stdout
    assert f"from --preprocessing {here / 'other.json'}" in result.stdout
    (here / "other.json").write_text('{"image_size": 48, "channels": "cmyk"}')
    refused = _export(here, "--preprocessing", here / "other.json")
    assert refused.exit_code == 1
    assert "it has channels 'cmyk', and needs one of rgb, bgr, grey. Mend the file." in refused.stderr
    assert read_export(here / "m").version.number == 1, "nothing was replaced"
