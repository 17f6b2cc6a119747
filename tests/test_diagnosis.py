"""The diagnosis of missing and stuck processes: real processes that look like Triton's.

This process stands in for Triton: it starts them, waits for them or not, and says which versions are ready.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from inference_server.supervision.death_watch import UNWAITED_S, DeathWatch
from inference_server.supervision.diagnosis import STUCK_S, Diagnosis, Finding, Version
from inference_server.supervision.model_processes import STUB
from inference_server.supervision.watching import POLL_S
from inference_server.triton.process import start_child

PROGRAMS = {"idle": "sleep 60 & wait", "waiting for a busy child": "sh -c 'while :; do :; done' & wait"}


@contextmanager
def _stub(
    folder: Path, model: str, version: int, doing: str = "idle", instance: int = 0
) -> Iterator[subprocess.Popen[bytes]]:
    file = folder / model / str(version) / doing
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():  # the shell of another instance may be reading it
        file.write_text(PROGRAMS[doing])
    shell = folder / STUB
    if not shell.exists():
        shell.symlink_to("/bin/sh")
    name = f"{model}_0_{instance}"
    process = start_child([str(shell), str(file), "region", "1", "1", "1", "backend", "1", name, "DEFAULT"])
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process without waiting for it."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def _diagnosis(ready: set[Version], url: str = "http://127.0.0.1:9/") -> Diagnosis:
    """Make a diagnosis of this process's children; the test changes ``ready`` as Triton would."""
    return Diagnosis(os.getpid(), frozenset({"cluster_head", "classifier", "preprocess"}), url, lambda: ready)


def _look(diagnosis: Diagnosis, seconds: float) -> list[Finding]:
    """Look again and again, as the watcher does; each finding once."""
    findings: list[Finding] = []
    ends_s = time.monotonic() + seconds
    while time.monotonic() < ends_s:
        findings += [finding for finding in diagnosis.look() if finding not in findings]
        time.sleep(POLL_S)
    return findings


@contextmanager
def _metrics(text: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
        server.shutdown()


def _counts(model: str, version: int, pending: int) -> str:
    labels = f'{{model="{model}",version="{version}"}}'
    return f"nv_inference_exec_count{labels} 7\nnv_inference_pending_request_count{labels} {pending}\n"


@pytest.mark.slow
def test_stuck_is_who_has_work_waiting_for_its_version_of_which_no_process_and_no_child_works(tmp_path: Path) -> None:
    metrics = (
        _counts("cluster_head", 1, pending=0)
        + _counts("cluster_head", 2, pending=3)
        + _counts("classifier", 1, pending=1)
        + _counts("preprocess", 1, pending=1)
    )
    with ExitStack() as stack:
        url = stack.enter_context(_metrics(metrics))
        stack.enter_context(_stub(tmp_path, "cluster_head", 1, "idle"))  # another version has work
        stack.enter_context(_stub(tmp_path, "cluster_head", 2, "waiting for a busy child"))
        stack.enter_context(_stub(tmp_path, "preprocess", 1, "idle"))  # waits for the one beside it
        stack.enter_context(_stub(tmp_path, "preprocess", 1, "waiting for a busy child"))
        stuck = stack.enter_context(_stub(tmp_path, "classifier", 1, "idle"))
        findings = _look(_diagnosis(set(), url), STUCK_S + 2.5)
    assert [(finding.model, finding.pids) for finding in findings] == [("classifier", (stuck.pid,))]


@pytest.mark.parametrize("is_reaped", [False, True], ids=["nobody-waits", "triton-has-waited"])
def test_death_of_one_of_several_processes_is_found_beside_another_version(tmp_path: Path, *, is_reaped: bool) -> None:
    """24.10 waits for no process that has died; from 26.04 on, Triton may have done so before anybody looks."""
    with ExitStack() as stack:
        first, second = (
            [stack.enter_context(_stub(tmp_path, "preprocess", version, instance=each)) for each in range(3)]
            for version in (1, 2)
        )
        diagnosis = _diagnosis({("preprocess", "1"), ("preprocess", "2"), ("ensemble", "1")})
        assert _look(diagnosis, 0.5) == []
        _end(second[1])
        if is_reaped:
            second[1].wait()
        diagnosis.look()  # the first look may have been in the middle of an unloading
        assert diagnosis.look() == [Finding(model="preprocess", pids=(), reason="died")]
        for process in (*first, second[0], second[2]):
            _end(process)
        diagnosis.forget("preprocess")  # replaced
        for version in (1, 2):
            for each in range(3):
                stack.enter_context(_stub(tmp_path, "preprocess", version, instance=each))
        assert _look(diagnosis, UNWAITED_S + 1) == []


def test_process_that_dies_before_anybody_has_seen_it_is_missed(tmp_path: Path) -> None:
    with _stub(tmp_path, "cluster_head", 1):
        ready = {("cluster_head", "1")}
        diagnosis = _diagnosis(ready)
        assert _look(diagnosis, 0.5) == []
        ready.add(("cluster_head", "2"))
        assert _look(diagnosis, 1.5) == [Finding(model="cluster_head", pids=(), reason="died")]


def test_process_that_was_asked_to_end_is_no_death_while_it_stays_dead_for_a_second(tmp_path: Path) -> None:
    """python_backend #450 looks once a second whether a process that it unloads has ended."""
    with _stub(tmp_path, "cluster_head", 1) as unloaded, _stub(tmp_path, "cluster_head", 2):
        ready = {("cluster_head", "1"), ("cluster_head", "2")}
        diagnosis = _diagnosis(ready)
        assert _look(diagnosis, 0.5) == []
        ready.remove(("cluster_head", "1"))
        _end(unloaded)
        assert _look(diagnosis, 1.2) == []
        unloaded.wait()
        assert _look(diagnosis, UNWAITED_S) == []


def test_process_that_another_one_replaces_in_the_same_version_is_no_death(tmp_path: Path) -> None:
    """A version that is loaded afresh stays ready; its new processes start before the old ones end."""
    with _stub(tmp_path, "cluster_head", 1) as old:
        diagnosis = _diagnosis({("cluster_head", "1")})
        assert _look(diagnosis, 0.5) == []
        with _stub(tmp_path, "cluster_head", 1):
            _end(old)
            assert _look(diagnosis, 1.2) == []


def test_model_of_a_backend_without_processes_lacks_none(tmp_path: Path) -> None:
    """The container's ONNX Runtime backend runs inside tritonserver."""
    with _stub(tmp_path, "preprocess", 1):
        assert _look(_diagnosis({("preprocess", "1"), ("classifier", "1")}), 1.2) == []


def test_death_that_triton_waits_for_in_vain_while_it_loads_a_version_is_found(tmp_path: Path) -> None:
    with _stub(tmp_path, "cluster_head", 1), _stub(tmp_path, "cluster_head", 2) as loading:
        diagnosis = _diagnosis({("cluster_head", "1")})
        assert _look(diagnosis, 0.5) == []
        _end(loading)
        assert _look(diagnosis, UNWAITED_S + 1) == [Finding(model="cluster_head", pids=(), reason="died")]


def test_nothing_is_dead_while_triton_does_not_say_what_is_ready(tmp_path: Path) -> None:
    with _stub(tmp_path, "cluster_head", 1) as process:
        ready: set[Version] | None = {("cluster_head", "1")}
        diagnosis = Diagnosis(os.getpid(), frozenset({"cluster_head"}), "http://127.0.0.1:9/", lambda: ready)
        assert _look(diagnosis, 0.5) == []
        ready = None
        _end(process)
        process.wait()
        assert _look(diagnosis, 1.2) == []
        ready = {("cluster_head", "1")}
        assert _look(diagnosis, 1.2) == [Finding(model="cluster_head", pids=(), reason="died")]


def test_load_fails_by_the_death_of_a_new_process_that_nobody_waits_for_and_by_no_older_one(tmp_path: Path) -> None:
    with _stub(tmp_path, "preprocess", 1) as old:
        deaths = DeathWatch(os.getpid())
        with _stub(tmp_path, "preprocess", 1, instance=1) as unloaded, _stub(tmp_path, "preprocess", 2) as died:
            for process in (old, unloaded, died):
                _end(process)
            began_s = time.monotonic()
            assert not deaths.has_died()
            time.sleep(1)
            unloaded.wait()
            while not deaths.has_died():
                assert time.monotonic() < began_s + UNWAITED_S + 1
                time.sleep(POLL_S)
            died.wait()
            assert not deaths.has_died()  # the oldest is dead still
