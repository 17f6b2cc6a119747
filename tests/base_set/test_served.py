"""Changes of the base set that a running server takes up."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from inference_client import Classify
from inference_export.repository.config_files import read_configs
from inference_export.repository.configs import Version
from inference_export.repository.versions import exported_version
from inference_server.command import main as server_main
from inference_server.supervision.watching import Watcher
from inference_server.triton.access import Access, access_file, claim, find_servers, write_access
from inference_server.triton.missing_gpu import has_gpu
from inference_server.triton.process import free_ports
from tests import tiny_network
from tests.base_set.conftest import Living
from tests.chaos.load import Load, expected_answers
from tests.chaos.tally import Tally
from tests.metrics import settled_metrics
from tests.resources import write_faces
from tests.watched import watched_server

pytestmark = pytest.mark.slow


def test_changes_reach_a_running_server_in_the_same_command_and_no_request_fails(living: Living) -> None:
    queries = write_faces(living.folder / "queries", range(10, 16), "q")
    new = write_faces(living.folder / "new", range(60, 63), "n")
    with watched_server("--model_repository", living.repository, log=living.folder / "log") as server:
        tally = Tally(what="changes of the base set")
        processes = [server.model_processes(model) for model in ("preprocess", "classifier")]
        with Load(server.url, [expected_answers(server.url, queries)], tally) as load:
            for number, image in enumerate(new, start=2):
                found = living.ask("add", "face", image)
                assert (found["version"], found["servers"]) == (number, [server.port])
                load.expected.append(expected_answers(server.url, queries))
                with Classify(server.url, details=True) as classify:
                    (entry,), _ = classify(image)
                assert entry["Version"] == number
                assert entry["Neighbors"][0]["Image"] == f"face/{image.name}"
            assert living.ask("set", "-thres", 0.99, images=False)["servers"] == [server.port]
            server.wait_until_said("version 5 is served, in place of 4")
            load.expected.append(expected_answers(server.url, queries))
            found = living.ask("rollback", images=False)
            assert (found["version_before"], found["version"], found["servers"]) == (5, 4, [server.port])
            load.expected.append(expected_answers(server.url, queries))
        assert tally.kept, tally
        assert [server.model_processes(model) for model in ("preprocess", "classifier")] == processes
        server.wait_until_said("version 4 is served, in place of 5")
        text = living.run("sync").stdout
        assert f"served now by inference-server on port {server.port}" in text
        if not has_gpu():
            assert re.findall(r".*\b(?:CUDA|Cuda|pinned system)", server.said()) == [
                "inference-server: no NVIDIA GPU here; Triton's messages that it finds no CUDA"
            ]


def test_metrics_outlive_the_processes_that_delete_them_when_they_are_unloaded(living: Living) -> None:
    """From 26.09 on, every process of a model deletes its metrics at its end. Here, ``finalize`` does so."""
    for model in ("preprocess", "cluster_head"):
        file = living.repository / model / "1" / "model.py"
        source, ends = re.subn(
            r"(?m)^( +)self\._\w+\.close\(\)$(?!\n +self)",
            r"\g<0>\n\1self.__dict__.clear()\n\1__import__('gc').collect()",
            file.read_text(),
        )
        assert ends == 1
        file.write_text(source)
    (query,) = write_faces(living.folder / "queries", [10], "q")
    with watched_server("--model_repository", living.repository, log=living.folder / "log") as server:
        triton = server.tritonserver()
        for threshold in (0.5, 0.6):  # the second change unloads the first version
            living.ask("set", "-thres", threshold, images=False)
        server.model_process("preprocess").kill()
        server.wait_until_said("the process of preprocess died; replaced")  # the other processes were unloaded
        time.sleep(1)
        with Classify(server.url) as classify:
            assert classify(query)[1] == 200
        answers = re.findall(r"^classify_images_total\{.*\} (\d+)", settled_metrics(server.metrics_url), re.M)
        assert sum(map(int, answers)) >= 1
        assert server.tritonserver() == triton


def test_server_that_was_killed_is_no_server_though_another_process_has_its_id(living: Living) -> None:
    """Pinning that server's version again, which is gone, would leave a repository that no server can start on."""
    (port,) = free_ports(1)
    dead = Access(
        pid=os.getpid(),
        grpc_port=port,
        key="key",
        repository=str(living.repository.resolve()),
        version=7,
        configs=read_configs(living.repository),
    )
    write_access(port, dead)
    try:
        write_faces(living.base / "face", [5], "new")
        assert living.ask("sync")["servers"] == []
        assert exported_version(living.repository) == Version(number=2, network=1)
        with claim(port):  # as the next server on the port does, before it writes a file of its own
            assert not access_file(port).exists()
            write_access(port, dead)
            assert find_servers(living.repository.resolve()) == [port]
    finally:
        access_file(port).unlink(missing_ok=True)


def test_change_that_a_running_server_cannot_take_up_is_refused_before_anything_changes(
    living: Living, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    with watched_server("--model_repository", living.repository, log=living.folder / "log"):
        living.export("--max_batch_size", 16)
        (new,) = write_faces(living.folder / "new", [60], "n")
        before = contents(living.repository) | contents(living.base)
        for command in (("add", "face", new), ("remove", "face/x001.png")):
            done = living.run(*command)
            assert (done.exit_code, "Restart inference-server" in done.stderr) == (1, True)
        assert contents(living.repository) | contents(living.base) == before


def test_start_changes_the_base_set_alone_where_the_network_is_the_same(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Watcher, "run", lambda _: 0)

    def start(*arguments: object) -> str:
        ports = [str(port) for port in free_ports(2)]
        given = ["-r", living.folder / "trained", "--network", tiny_network.NETWORK, "-data", living.base,
                 "--model_repository", living.repository, "--cache", living.cache, *arguments,
                 "--port", ports[0], "--metrics_port", ports[1]]  # fmt: skip
        done = CliRunner().invoke(server_main, list(map(str, given)))
        assert done.exit_code == 0, done.output
        return done.stderr

    assert "was exported" not in start()
    write_faces(living.base / "face", [5], "new")
    said = start()
    assert "changing the base set: changed since" in said
    assert "was exported: base data" in said
    assert "version 2, in place of 1: images: 1 added" in said
    assert "was exported: options of the base set" in start("-thres", 0.5)
    assert "exporting" in start("-thres", 0.5, "--max_batch_size", 8)
    shutil.rmtree(living.base / "face")
    write_faces(living.base / "face", [1], "x")
    for name in ("x102.png", "x103.png"):
        (living.base / "other" / name).unlink()
    said = start("-thres", 0.5, "--max_batch_size", 8)
    assert "warning: the base set stays as it is." in said
    assert "base-set sync --yes" in said
