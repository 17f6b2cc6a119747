"""The command ``classify-evaluate``, as a user types it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from inference_client.command_line import extras
from inference_client.command_line.results import parquet
from inference_evaluation import __main__ as command
from inference_server.triton.process import RunningServer, free_ports
from tests.evaluation.conftest import Evaluated
from tests.evaluation.relay import relaying

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
    assert ("Use -thres 0." in clustering_evaluation.stdout) != ("Keep the threshold" in clustering_evaluation.stdout)
    assert "report.html" in clustering_evaluation.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere", "-ip", "localhost:8080"), "does not exist"),
        (("images", "-ip", "localhost"), "port is missing"),
        (("images",), "--server_ip"),
        (("images", "-ip", "localhost:8080", "--sim_thres", "nan"), "not a finite number"),
        (("images/a", "-ip", "localhost:8080"), "images meant?"),
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


def test_image_whose_request_failed_fails_the_evaluation(folder: Path, clustering_server: RunningServer) -> None:
    with relaying(clustering_server.url, refused="ensemble/infer") as relay:
        result = run(folder, "-ip", relay.url, "--out", folder.parent / "out")
    assert result.exit_code == 1
    assert "2 of 2 images were not answered" in result.stderr
    assert "not for you" in result.stderr
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
            received = b""
            while b"\r\n\r\n" not in received:
                received += connection.recv(4096)
            process.send_signal(signal.SIGINT)  # while it waits for the answer
            _, errors = process.communicate(timeout=60)
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
        "Error: Packages are missing: matplotlib. Install them:\n  pip install 'classify-triton[report]'\n"
    )


def test_extra_brings_what_the_command_needs_and_asking_for_help_none_of_it() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    brought = [requirement.split(">")[0] for requirement in project["optional-dependencies"]["report"]]
    assert sorted(brought) == sorted([*extras.EXTRA_PACKAGES["report"], parquet.PACKAGE])
    code = (
        "import sys, inference_evaluation.__main__; "
        "print([name for name in ('jinja2', 'matplotlib', 'sklearn', 'torch', 'onnx') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(("arguments", "client"), [((), "evaluation"), (("--client_id", "ward 7"), "ward 7")])
def test_every_request_comes_from_the_client_evaluation_unless_another_is_named(
    arguments: tuple[str, ...], client: str, clustering_server: RunningServer, query_images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    shutil.copy(query_images[0], tmp_path / "images" / "a")
    with relaying(clustering_server.url) as relay:
        result = run(tmp_path / "images", "-ip", relay.url, "--out", tmp_path / "out", *arguments)
    assert result.exit_code == 0, result.output
    assert [path.split("/")[3] for path, _ in relay.requests if path.endswith("/infer")] == ["ensemble", "cluster_head"]
    assert {client_id for _, client_id in relay.requests} == {client}
