"""The command ``classify-evaluate``, as a user types it."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from inference_client import transport
from inference_client.command_line import extras
from inference_client.settings import read_settings
from inference_evaluation import __main__ as command
from inference_evaluation import asking
from inference_evaluation.labelled_images import LabelledImage
from inference_server.triton.process import RunningServer, free_ports
from tests.evaluation.conftest import Evaluated

FILES = ["evaluation.json", "predictions.csv", "report.html"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    for name in ("a/1.png", "b/2.png"):
        (images / name).parent.mkdir(parents=True)
        (images / name).write_text(name)
    return images


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command.main, list(map(str, arguments)), catch_exceptions=False)


def test_three_files_are_written_and_named(clustering_evaluation: Evaluated) -> None:
    assert sorted(file.name for file in clustering_evaluation.out.iterdir()) == FILES
    assert not list(clustering_evaluation.out.parent.glob(f".{clustering_evaluation.out.name}-*"))
    assert ("Take -thres 0." in clustering_evaluation.stdout) != ("Keep the threshold" in clustering_evaluation.stdout)
    assert "report.html" in clustering_evaluation.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere", "-ip", "localhost:8080"), "does not exist"),
        (("images", "-ip", "localhost"), "port is missing"),
        (("images",), "--server_ip"),
        (("images", "-ip", "localhost:8080", "--sim_thres", "nan"), "not a finite number"),
        (("images/a", "-ip", "localhost:8080"), "holds no images"),
    ],
    ids=["no-folder", "no-port", "no-server", "nan", "no-class-folders"],
)
def test_wrong_usage_is_refused_before_anything_is_sent(
    arguments: tuple[str, ...], says: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert [entry.name for entry in folder.parent.iterdir()] == ["images"]


def test_failed_evaluation_leaves_an_earlier_one_as_it_was(folder: Path) -> None:
    out = folder.parent / "out"
    out.mkdir()
    (out / "report.html").write_text("earlier")
    (port,) = free_ports(1)
    result = run(folder, "-ip", f"127.0.0.1:{port}", "--out", out)
    assert result.exit_code == 1
    assert "refused the connection" in result.stderr
    assert "Nothing was written" in result.stderr
    assert (out / "report.html").read_text() == "earlier"
    assert sorted(entry.name for entry in folder.parent.iterdir()) == ["images", "out"]


@pytest.mark.parametrize(("taken", "out"), [("report.html", "out"), ("", "/dev/null")], ids=["a-folder", "a-device"])
def test_place_that_can_not_be_written_is_told_before_anything_is_asked(folder: Path, taken: str, out: str) -> None:
    target = folder.parent / out
    if taken:
        (target / taken).mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = run(folder, "-ip", f"127.0.0.1:{silent.getsockname()[1]}", "--timeout_s", "1", "--out", target)
    assert result.exit_code == 1
    assert f"{target / taken}: " in result.stderr
    assert "gave no answer" not in result.stderr


def test_evaluation_is_written_on_a_file_system_of_its_own(folder: Path, clustering_server: RunningServer) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        out = Path(name)
        assert out.stat().st_dev != folder.stat().st_dev, "the test needs two file systems"
        assert run(folder, "-ip", clustering_server.url, "--out", out).exit_code == 0
        assert sorted(entry.name for entry in out.iterdir()) == ["evaluation.json", "predictions.csv", "report.html"]


def test_image_whose_request_failed_fails_the_evaluation(
    folder: Path, clustering_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MODEL", "absent")
    result = run(folder, "-ip", clustering_server.url, "--out", folder.parent / "out")
    assert result.exit_code == 1
    assert "2 of 2 images were not answered" in result.stderr
    assert "absent" in result.stderr
    assert [entry.name for entry in folder.parent.iterdir()] == ["images"]


def test_interrupted_evaluation_leaves_nothing_behind(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "inference_evaluation", str(folder), "-ip", address, "--out", "out"],
            cwd=folder.parent,
            stderr=subprocess.PIPE,
        )
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)
            time.sleep(0.5)  # it waits for the answer
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"Aborted!" in errors
    assert [entry.name for entry in folder.parent.iterdir()] == ["images"]


def test_extra_that_is_missing_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "matplotlib":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(extras, "version", version)
    result = run(folder, "-ip", "localhost:8080")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: matplotlib not installed. Install what is missing:\n  pip install 'classify-triton[report]'\n"
    )


def test_extra_brings_what_the_command_needs_and_asking_for_help_none_of_it() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    brought = [requirement.split(">")[0] for requirement in project["optional-dependencies"]["report"]]
    assert sorted(brought) == sorted(extras.EXTRA_PACKAGES["report"])
    code = (
        "import sys, inference_evaluation.__main__; "
        "print([name for name in ('jinja2', 'matplotlib', 'sklearn', 'torch', 'onnx') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_curve_is_left_out_with_a_reason_where_the_last_step_can_not_be_asked(
    clustering_server: RunningServer, query_images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "HEAD", "absent")
    settings = read_settings(clustering_server.url, timeout_s=60, connect_timeout_s=5, client_id=None, api_key=None)
    images = [LabelledImage(path=path, truth="alpha") for path in query_images[:2]]
    found = asking.ask(settings, images, sim_thres=0.4, progress=lambda _: None)
    assert "absent" in (found.no_sweep or "")
    assert [each.labels for each in found.predictions] == [None, None]
    assert all(each.matches for each in found.predictions)


def _finished_size(log: Path) -> int:
    """Return the size of a log once it holds what came before: lines are written a little later than answers."""
    before, size = -1, log.stat().st_size
    while size != before:
        time.sleep(1)
        before, size = size, log.stat().st_size
    return size


@pytest.mark.parametrize(("arguments", "client"), [((), "evaluation"), (("--client_id", "ward 7"), "ward 7")])
def test_every_request_comes_from_the_client_evaluation_unless_another_is_named(
    arguments: tuple[str, ...], client: str, clustering_server: RunningServer, query_images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    shutil.copy(query_images[0], tmp_path / "images" / "a")
    before = _finished_size(clustering_server.log)
    result = run(tmp_path / "images", "-ip", clustering_server.url, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 0
    deadline_s = time.monotonic() + 10
    lines: list[dict[str, Any]] = []
    while not any(line.get("sim_thres") == 1 for line in lines):  # one of the trials
        assert time.monotonic() < deadline_s, lines
        log = clustering_server.log.read_bytes()[before:].decode()
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{") and line.endswith("}")]
    assert len(lines) > 2
    assert {line["client"] for line in lines} == {client}


def test_answers_of_two_versions_are_refused(
    clustering_server: RunningServer, query_images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = iter([1, 2])
    served = asking._served
    monkeypatch.setattr(asking, "_served", lambda connection: replace(served(connection), version=next(versions)))
    settings = read_settings(clustering_server.url, timeout_s=60, connect_timeout_s=5, client_id=None, api_key=None)
    images = [LabelledImage(path=query_images[0], truth="alpha")]
    with pytest.raises(asking.EvaluationError, match="version changed from 1 to 2 during the evaluation"):
        asking.ask(settings, images, sim_thres=None, progress=lambda _: None)
