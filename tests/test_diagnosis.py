"""The diagnosis of stuck processes: real processes that look like Triton's, with metrics that a test writes."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from inference_server.supervision.diagnosis import STUCK_S, Diagnosis
from inference_server.supervision.model_processes import STUB
from inference_server.triton.process import start_child

PROGRAMS = {"idle": "sleep 60 & wait", "waiting for a busy child": "sh -c 'while :; do :; done' & wait"}


@contextmanager
def _stub(folder: Path, model: str, version: int, doing: str) -> Iterator[subprocess.Popen[bytes]]:
    file = folder / model / str(version) / doing
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(PROGRAMS[doing])
    shell = folder / STUB
    shell.unlink(missing_ok=True)
    shell.symlink_to("/bin/sh")
    process = start_child([str(shell), str(file), "region", "1", "1", "1", "backend", "1", f"{model}_0_0", "DEFAULT"])
    try:
        yield process
    finally:
        os.killpg(process.pid, 9)
        process.wait()


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
        diagnosis = Diagnosis(os.getpid(), frozenset({"cluster_head", "classifier", "preprocess"}), url)
        ends_s = time.monotonic() + STUCK_S + 2.5
        stuck_processes = []
        while time.monotonic() < ends_s:
            stuck_processes += diagnosis.look()
            time.sleep(0.2)
    assert {(hang.model, hang.pids) for hang in stuck_processes} == {("classifier", (stuck.pid,))}


def test_dead_is_who_was_dead_at_two_looks_since_an_unloaded_process_is_soon_waited_for(tmp_path: Path) -> None:
    with (
        _stub(tmp_path, "classifier", 1, "idle") as unloaded,
        _stub(tmp_path, "preprocess", 1, "idle") as died,
        _metrics("") as url,
    ):
        diagnosis = Diagnosis(os.getpid(), frozenset({"classifier", "preprocess"}), url)
        assert diagnosis.look() == []
        for process in (unloaded, died):
            process.kill()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and stays a zombie
        assert diagnosis.look() == []
        unloaded.wait()
        (finding,) = diagnosis.look()
        assert (finding.model, finding.pids, finding.reason) == ("preprocess", (died.pid,), "died")
