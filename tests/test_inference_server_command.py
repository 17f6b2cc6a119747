"""``inference-server``: exports when needed, says why, and serves."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from inference_client import Classify
from inference_export.command import main as export_main
from inference_export.repository.reading import read_export
from inference_server import start_plan
from inference_server.command import main
from inference_server.reload.command import main as reload_main
from inference_server.supervision.watching import Watcher
from inference_server.triton.process import free_ports
from tests import tiny_network
from tests.conftest import SMALL, Trained
from tests.resources import write_faces
from tests.watched import watched_server

pytestmark = pytest.mark.slow


def test_resources_are_exported_once_and_again_only_when_something_changed(
    small: Trained, tmp_path: Path, query_images: list[Path]
) -> None:
    base = tmp_path / "base"
    write_faces(base / "a", [1, 2], "x")
    write_faces(base / "b", [101, 102], "x")
    repository = tmp_path / "repository"
    arguments = ("-r", small.folder, "-data", base, "--model_repository", repository, "--image_size", SMALL)
    log = tmp_path / "log"
    os.sched_setscheduler(
        0, os.SCHED_OTHER, os.sched_param(0)
    )  # a command that ran in this process may have left another
    with watched_server(*arguments, log=log) as server:
        assert "holds no export" in server.said()
        assert "clustering mode" in server.said()
        for process in (server.tritonserver(), server.model_process("classifier")):
            assert os.sched_getscheduler(process.pid) == os.SCHED_BATCH
        with Classify(server.url) as classify:
            assert classify(query_images[0])[1] == 200
        taken = CliRunner().invoke(main, [*map(str, arguments), "--port", str(server.port)])
        assert taken.exit_code == 1
        assert taken.stderr == (
            f"Error: 127.0.0.1:{server.port} can't be listened on (Address already in use). It is taken by "
            f"tritonserver (process {server.tritonserver().pid}); another inference-server? Choose another port with "
            "--port.\n"
        )
    with watched_server(*arguments, log=log) as server:
        assert "exporting" not in server.said()
        assert "version 1" in server.said()
    write_faces(base / "b", [103], "x")
    with watched_server(*arguments, log=log) as server:
        assert f"changed since {repository} was exported: base data" in server.said()
        assert "version 2" in server.said()
        with Classify(server.url, details=True) as classify:
            assert len(classify(base / "b" / "x103.png")[0][0]["Neighbors"]) == 5


@pytest.fixture
def tiny(tmp_path: Path) -> list[object]:
    """Arguments for a tiny network without base data; a folder of base data is beside it."""
    tiny_network.write_tiny_resources(tmp_path / "trained")
    for name in "ab":
        write_faces(tmp_path / "base" / name, [1, 2], "x")
    return ["-r", tmp_path / "trained", "--network", tiny_network.NETWORK, "--model_repository", tmp_path / "out"]


def _refused(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 1, result.output
    return result.stderr


@pytest.mark.slow
def test_missing_base_data_change_nothing_and_a_change_of_mode_is_reported(tiny: list[object], tmp_path: Path) -> None:
    base = tmp_path / "base"
    log = tmp_path / "log"
    with watched_server(*tiny, "-data", base, log=log) as server:
        shutil.move(base, tmp_path / "unmounted")
        base.mkdir()
        assert "Is a volume not mounted there?" in _refused(*tiny, "-data", base)
        assert "out answers in clustering mode" in _refused(*tiny)
        export = CliRunner().invoke(export_main, [str(argument) for argument in (*tiny, "--mode", "classification")])
        assert export.exit_code == 0, export.output
        change = "the mode has changed: clustering before, classification now"
        reloaded = CliRunner().invoke(reload_main, ["--port", str(server.port)])
        assert reloaded.stdout.splitlines()[-1] == change
        server.wait_until_said(f"version 2 is served, in place of 1; {change}")


@pytest.mark.parametrize(
    ("default", "arguments", "mode"),
    [
        pytest.param("base", [], "clustering", id="default-folder"),
        pytest.param("none", [], "classification", id="absent"),
        pytest.param("empty", [], "classification", id="empty"),
        pytest.param("base", ["--mode", "classification"], "classification", id="said-otherwise"),
    ],
)
def test_default_base_folder_decides_the_mode_only_if_it_holds_anything(
    tiny: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    default: str,
    arguments: list[str],
    mode: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(start_plan, "DEFAULT_BASE_DATA", tmp_path / default)
    monkeypatch.setattr(Watcher, "run", lambda _: 0)
    ports = [str(port) for port in free_ports(2)]
    given = [*map(str, tiny), *arguments, "--port", ports[0], "--metrics_port", ports[1]]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 0, result.output
    assert f"in {mode} mode" in result.stderr


def test_port_of_the_metrics_is_looked_for_on_their_own_address(
    tiny: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watcher, "run", lambda _: 0)
    port, metrics_port = map(str, free_ports(2))
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.2", int(metrics_port)))
        taken.listen()
        given = [*map(str, tiny), "--port", port, "--metrics_port", metrics_port]
        assert CliRunner().invoke(main, given).exit_code == 0
        refused = CliRunner().invoke(main, [*given, "--", "--metrics-address=127.0.0.2"])
    assert refused.exit_code == 1
    assert refused.stderr.endswith(
        f"Error: 127.0.0.2:{metrics_port} can't be listened on (Address already in use). It is taken by "
        f"{psutil.Process().name()} (process {os.getpid()}); another inference-server? Choose another port with "
        "--metrics_port.\n"
    )


def test_two_listeners_on_one_port_are_refused(tiny: list[object]) -> None:
    result = CliRunner().invoke(main, [*map(str, tiny), "--port", "8002"])
    assert result.exit_code == 1
    assert result.stderr == "Error: --port and --metrics_port are both 8002. Give each a port of its own.\n"


def test_export_lying_there_is_served_without_torch_or_onnx(small_clustering: Path) -> None:
    script = (
        "import sys; from inference_server import command\n"
        "command.Watcher.run = lambda watcher: print('torch' in sys.modules, 'onnx' in sys.modules)\n"
        "command.main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, "--model_repository", str(small_clustering)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["False", "False"]
    assert "clustering mode" in result.stderr


def test_repository_without_export_and_resources_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--model_repository", str(tmp_path / "none")])
    assert result.exit_code == 1
    assert "holds no export. Name the trained resources with -r." in result.stderr


def test_base_embeddings_of_another_network_are_refused(small_classification: Path, tmp_path: Path) -> None:
    repository = Path(shutil.copytree(small_classification, tmp_path / "repository"))
    graph = repository / "classifier" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b"\0")
    result = CliRunner().invoke(main, ["--model_repository", str(repository)])
    assert result.exit_code == 1
    assert "base embeddings were computed with another classifier" in result.stderr
    assert read_export(tmp_path) is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["-thres", "nan"], "'nan' is not a finite number", id="nan"),
        pytest.param(["--port", "0"], "0 is not in the range", id="port"),
        pytest.param(["-r", "no/such"], "does not exist", id="folder"),
        pytest.param(["-thres", "0.5"], "--sim_thres describes an export, and has no effect without -r", id="no-r"),
        pytest.param(["--", "--http-port=9000"], "Give --port instead", id="two-ports"),
        pytest.param(["--", "--http-po", "9000"], "Give --port instead", id="port-cut-short"),
        pytest.param(["--", "--grpc-port=9"], "--grpc-port is reserved for this command", id="reserved"),
        pytest.param(["--", "--model-store=x"], "Give --model_repository instead", id="two-repositories"),
    ],
)
def test_wrong_usage_ends_with_code_2(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_address_of_another_machine_is_refused_before_anything_else(small_clustering: Path) -> None:
    arguments = ["--model_repository", str(small_clustering), "--host", "300.1.1.1"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "300.1.1.1:8080 can't be listened on" in result.stderr
    assert "Is 300.1.1.1 an address of this machine? Choose one with --host." in result.stderr
