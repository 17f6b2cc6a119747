"""Short forms of ``make chaos``: each scenario really runs, fewer times and without bounds on time."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from inference_client import Classify
from inference_server.supervision.failures import MOST_FAILURES
from inference_server.supervision.shared_memory import FOLDER, PREFIX
from inference_server.supervision.watching import GIVEN_UP_EXIT_CODE
from inference_server.triton.access import access_file, find_access_file
from inference_server.triton.process import free_ports, start_child
from tests.chaos import (
    base_sets,
    changing_resources,
    closing,
    compressed,
    crashes,
    descriptors,
    exports,
    forgetting,
    heavy_images,
    images,
    overload,
    reloads,
    requests,
    watching,
)
from tests.chaos.load import Expected, Load, expected_answers
from tests.chaos.setting import IMAGE_SIZE, Setting, prepare
from tests.chaos.tally import Tally
from tests.heavy import HEAVIEST
from tests.metrics import settled_metrics
from tests.watched import WatchedServer, watched_server

MAX_BATCH_SIZE = 32

# One after another: side by side, what each measures would be the other's work.
pytestmark = pytest.mark.xdist_group("test_chaos")


@pytest.fixture(scope="session")
def setting(shared: Path, workspace: Path) -> Setting:
    return replace(prepare(shared / "chaos", tiny=True), folder=workspace)


@pytest.fixture(scope="module")
def server(setting: Setting) -> Iterator[WatchedServer]:
    """A server for scenarios that leave no trace."""
    with watched_server("--model_repository", setting.export("served"), log=setting.folder / "log") as running:
        yield running
        assert "replaced" not in running.said()
        assert "restarted" not in running.said()


@pytest.fixture(scope="module")
def expected(setting: Setting, server: WatchedServer) -> Expected:
    return expected_answers(server.url, setting.images)


def _kept(tally: Tally) -> None:
    assert tally.kept, f"{tally}"


def test_overload_is_refused_at_once_and_nothing_is_lost_or_replaced(server: WatchedServer, expected: Expected) -> None:
    tally = overload.overload(server, expected, seconds=8, batch=MAX_BATCH_SIZE, timed=False)
    _kept(tally)
    assert tally.refused > 0


def test_hostile_images_have_their_reasons_and_valid_ones_their_answers(
    server: WatchedServer, expected: Expected
) -> None:
    processes = server.model_processes("preprocess")
    _kept(images.send_corpus(server.url, expected, IMAGE_SIZE, processes, every=4))


def test_hostile_requests_are_refused_and_valid_ones_answered(server: WatchedServer, expected: Expected) -> None:
    _kept(requests.send_requests(server.url, expected, MAX_BATCH_SIZE))


def test_slow_connections_hold_nobody_up(server: WatchedServer, expected: Expected) -> None:
    _kept(requests.hold_slow_connections(server.url, expected, seconds=3))


def test_calls_of_a_client_that_is_closed_end_at_once_and_none_is_wrong(
    server: WatchedServer, expected: Expected
) -> None:
    tally = closing.close_during_calls(server.url, expected, times=8)
    _kept(tally)
    assert tally.refused > 0


def test_heaviest_images_leave_an_innocent_client_its_right_answers(server: WatchedServer, expected: Expected) -> None:
    some = HEAVIEST[::3]
    _kept(heavy_images.send_each(server, expected, some, batch=4, share=0.01))
    _kept(heavy_images.send_without_pause(server, expected, some, 4, seconds=2, share=0.01))


def test_clients_told_apart_are_bounded_and_the_header_wins(server: WatchedServer, setting: Setting) -> None:
    for client_id in (None, *(f"forged {number}" for number in range(120))):
        with Classify(server.url, client_id=client_id) as classify:
            assert classify(setting.images[0])[1] == 200
    metrics = settled_metrics(server.metrics_url)
    clients = re.findall(r'^classify_images_total\{client="([^"]*)"', metrics, re.MULTILINE)
    assert len(set(clients)) <= 101
    assert {"other", "unknown", "forged 0"} <= set(clients)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_processes_that_die_or_stop_are_replaced_and_no_answer_is_lost(setting: Setting, how: signal.Signals) -> None:
    repository = setting.export(f"crashes-{how.name}")
    with watched_server("--model_repository", repository, log=setting.folder / f"{how.name}.log") as server:
        answers = expected_answers(server.url, setting.images)
        _kept(crashes.crash_models(server, answers, how, timed=False))
        _kept(crashes.crash_server(server, answers, how, timed=False))


def test_process_that_hangs_with_work_waiting_is_replaced(setting: Setting) -> None:
    repository = setting.export("stuck")
    model = repository / "cluster_head" / "1" / "model.py"
    source = model.read_text()
    hang = "        if requests and self._hangs:\n            import time; time.sleep(3600)\n"
    flag = setting.folder / "hang"
    flag.touch()
    start = f"        self._hangs = Path({str(flag)!r}).exists()\n"
    for line, before in (("        questions = [read_question(request)", hang), ("        self._head =", start)):
        assert line in source
        source = source.replace(line, before + line)
    model.write_text(source)
    with watched_server("--model_repository", repository, log=setting.folder / "stuck.log") as server:
        flag.unlink()  # the next process is sound
        with (
            Classify(server.url, timeout_s=30) as first,
            Classify(server.url, timeout_s=30) as second,
            ThreadPoolExecutor(2) as threads,
        ):
            hanging = threads.submit(first, setting.images[0])
            time.sleep(1)  # otherwise both would be one batch, and nothing would wait
            answers = [second(setting.images[0]), hanging.result()]
        assert [status for _, status in answers] == [200, 200], answers
        assert "was stuck, with work waiting; replaced" in server.said()


@pytest.fixture(scope="module")
def expendable(setting: Setting) -> Iterator[WatchedServer]:
    """A server for scenarios that may leave traces, or end it."""
    with watched_server("--model_repository", setting.export("expendable"), log=setting.folder / "expended") as running:
        yield running


def test_idle_connections_that_take_every_descriptor_neither_fill_the_log_nor_end_anything(
    setting: Setting, expendable: WatchedServer
) -> None:
    soft, hard = expendable.tritonserver().rlimit(psutil.RLIMIT_NOFILE)
    assert soft == hard
    _kept(descriptors.exhaust(expendable, expected_answers(expendable.url, setting.images), seconds=2))


def test_server_that_a_compressed_body_ended_is_restarted_and_no_answer_is_lost(
    setting: Setting, expendable: WatchedServer
) -> None:
    _kept(compressed.send_to_server(expendable, expected_answers(expendable.url, setting.images)))


@pytest.mark.parametrize("pause_s", [0.01, 0.0], ids=["50-within-half-a-second", "without-pause"])
def test_many_sigterms_end_it_with_code_0(setting: Setting, expendable: WatchedServer, pause_s: float) -> None:
    repository = setting.folder / "expendable"
    with watched_server("--model_repository", repository, log=setting.folder / "sigterms") as server:
        while server.process.poll() is None:
            server.process.terminate()
            time.sleep(pause_s)
        assert server.process.returncode == 0, server.said()[-2000:]


def test_process_that_dies_again_and_again_is_given_up(setting: Setting) -> None:
    repository = setting.export("given-up")
    with watched_server("--model_repository", repository, log=setting.folder / "given-up.log") as server:
        ends_s = time.monotonic() + 90
        while server.process.poll() is None and time.monotonic() < ends_s:
            try:
                server.model_process("cluster_head").kill()
            except (LookupError, StopIteration, psutil.Error):
                time.sleep(0.1)
        assert server.process.wait(30) == GIVEN_UP_EXIT_CODE
        assert re.search(rf"giving up: .*, {MOST_FAILURES + 1} times in a row", server.said())
    assert not access_file(server.port).exists()


def test_sigterm_lets_requests_finish_and_leaves_nothing_also_after_a_death(setting: Setting) -> None:
    repository = setting.export("stopped")
    with watched_server("--model_repository", repository, log=setting.folder / "stopped.log") as server:
        answers = expected_answers(server.url, setting.images)
        server.model_process("classifier").kill()
        time.sleep(0.3)
        server.wait_until_serving()
        access = access_file(server.port)
        assert stat.S_IMODE(access.stat().st_mode) == 0o600
        assert stat.S_IMODE(access.parent.stat().st_mode) == 0o700
        prefix = crashes.shared_memory_prefix(server.tritonserver())
        assert prefix.startswith(PREFIX)
        tally = Tally(what="requests in flight at SIGTERM")
        descendants = server.tritonserver().children(recursive=True)
        # Later requests meet a server that is about to end, or none.
        may_refuse = frozenset({404, 503, 504})
        with Load(server.url, [answers], tally, clients=8, timeout_s=3, may_refuse=may_refuse) as load:
            time.sleep(1)
            began_s = time.monotonic()
            server.process.terminate()
            assert server.process.wait(30) == 0
        _kept(tally)
        in_flight = load.statuses_of_calls_in_flight(began_s)
        assert in_flight
        assert set(in_flight) == {200}
        assert not list(FOLDER.glob(f"{prefix}*"))
        assert not access.exists()
        assert psutil.wait_procs(descendants, timeout=5)[1] == []


def test_server_is_asked_without_the_proxy_that_the_environment_names(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = setting.export("behind-a-proxy")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        command = [sys.executable, "-m", "inference_server", "--model_repository", str(repository)]
        port, metrics_port = free_ports(2)
        log = setting.folder / "behind-a-proxy.log"
        with log.open("wb") as output:
            process = start_child([*command, "--port", str(port), "--metrics_port", str(metrics_port)], output=output)
        try:
            ends_s = time.monotonic() + 60
            while "ready at" not in log.read_text() and time.monotonic() < ends_s:
                time.sleep(0.1)
            done = reloads.run_command("inference-server", "--check", "--port", port)
            assert done.returncode == 0, done.stderr + log.read_text()[-1000:]
            done = reloads.run_command("base-set", "set", "-thres", 0.5, "--model_repository", repository)
            assert f"served now by inference-server on port {port}" in done.stdout, done.stderr
            with pytest.raises(BlockingIOError):
                proxy.accept()
        finally:
            process.terminate()
            process.wait(60)


def test_server_that_stops_is_no_longer_found_by_a_reload(setting: Setting) -> None:
    """A reload would load again what the stop has unloaded, and the stop would take half a minute."""
    with watched_server("--model_repository", setting.export("ending"), log=setting.folder / "ending.log") as server:
        server.wait_until_said("ready at")
        triton = server.tritonserver()
        server.process.terminate()
        ends_s = time.monotonic() + 30
        while access_file(server.port).exists() and time.monotonic() < ends_s:
            time.sleep(0.005)
        assert triton.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("repairing", [False, True], ids=["watching", "replacing-a-process"])
def test_sigterm_ends_it_soon_though_tritonserver_answers_nothing(setting: Setting, *, repairing: bool) -> None:
    """Docker kills it after 45 s, and what is killed leaves its shared memory."""
    repository = setting.export("silent")
    with watched_server("--model_repository", repository, log=setting.folder / "silent.log") as server:
        server.wait_until_said("ready at")
        triton = server.tritonserver()
        if repairing:
            loads = server.said().count("ModelInstanceInitialize: preprocess")
            server.model_process("preprocess").kill()
            while server.said().count("ModelInstanceInitialize: preprocess") == loads:
                time.sleep(0.01)
        triton.suspend()
        time.sleep(0.3)
        server.process.terminate()
        assert server.process.wait(25) == 0
        assert not triton.is_running()


def test_changes_under_load_are_complete_or_refused(setting: Setting) -> None:
    repository = setting.export("reloads")
    with watched_server("--model_repository", repository, log=setting.folder / "reloads.log") as server:
        export = setting.arguments("reloads", base=setting.larger, trained=setting.retrained)
        _kept(reloads.reload_under_load(server, setting.images, "network and base set", export, timed=False))
        setting.export("reloads")
        _kept(reloads.refuse_broken_version(server, repository, setting.images, "cluster_head/{}/heads.py"))
        # More exports than the versions kept, without a reload: the served version stays.
        another = setting.arguments("reloads", base=setting.smaller)
        assert reloads.run_export(*another).exit_code == 0
        kept = [version for version in range(1, 5) if (repository / "cluster_head" / str(version)).is_dir()]
        assert kept == [1, 4]
        done = reloads.run_command("reload-repository", "--port", server.port)
        assert "is served, in place of 1" in done.stdout
        assert reloads.run_command("reload-repository", "--port", server.port, "--rollback").returncode == 0
        done = reloads.run_command("reload-repository", "--port", server.port)  # forward again
        assert re.search(r"version (\d+) is served, in place of \d+", done.stdout), done
        export = setting.arguments("reloads", "--image_size", 96)
        _kept(reloads.refuse_other_shape(server, setting.images, export))


def test_changes_of_the_base_set_under_load_are_complete(setting: Setting) -> None:
    repository = setting.export("base-sets")
    with watched_server("--model_repository", repository, log=setting.folder / "base-sets.log") as server:
        _kept(base_sets.change_under_load(server, repository, setting.base, setting.images, times=4, timed=False))
        server.wait_until_said("version 3 is served, in place of 4")


def test_server_killed_during_a_sync_leaves_the_old_or_the_new_base_set(setting: Setting) -> None:
    repository = setting.export("watching")
    log, cache = setting.folder / "watching.log", setting.folder / "watching-cache"
    _kept(watching.kill_while_following(repository, setting.base, setting.images, cache=cache, times=3, log=log))


def test_images_are_forgotten_under_load_also_by_a_command_that_was_killed(setting: Setting) -> None:
    repository = setting.export("forgetting")
    with watched_server("--model_repository", repository, log=setting.folder / "forgetting.log") as server:
        _kept(forgetting.forget_under_load(server, repository, setting.base, setting.images, times=1))
        _kept(forgetting.kill_forgets(server, repository, setting.base, setting.images, times=2))


def test_reload_without_a_server_says_so() -> None:
    done = reloads.run_command("reload-repository", "--port", 9)
    assert done.returncode == 1
    assert "no inference-server of yours runs on port 9" in done.stderr


def test_check_fails_without_a_server() -> None:
    done = reloads.run_command("inference-server", "--check", "--port", 9)
    assert done.returncode == 1
    assert "gave no label" in done.stderr
    assert "Connection refused" in done.stderr


def test_export_killed_at_any_moment_leaves_a_repository_that_loads(setting: Setting) -> None:
    repository = setting.export("killed")
    log = setting.folder / "killed.log"
    _kept(exports.kill_exports(repository, setting.images, setting.arguments("killed"), times=2, log=log))


def test_resources_changed_during_an_export_are_served_as_they_are_recorded(setting: Setting) -> None:
    _kept(changing_resources.change_during_exports(setting.folder / "changing", setting.images, times=2))


def test_shared_memory_of_a_killed_watcher_is_removed_by_the_next_and_nobody_elses(setting: Setting) -> None:
    repository = setting.export("shared")
    foreign = FOLDER / "triton_python_backend_shm_region_of_somebody_else"
    foreign.touch()
    try:
        with watched_server("--model_repository", repository, log=setting.folder / "one.log") as server:
            prefix = crashes.shared_memory_prefix(server.tritonserver())
            assert list(FOLDER.glob(f"{prefix}*"))
            triton = server.tritonserver()
            server.process.kill()
            server.process.wait()
            triton.wait(10)
        # A server of another test that starts now removes them too.
        with watched_server("--model_repository", repository, log=setting.folder / "other.log"):
            assert not list(FOLDER.glob(f"{prefix}*"))
        assert foreign.exists()
    finally:
        foreign.unlink()


def test_admin_key_is_fresh_and_in_no_log(setting: Setting, server: WatchedServer) -> None:
    key = json.loads(access_file(server.port).read_text())["key"]
    assert len(key) > 40
    assert key not in server.said()


def test_sigterm_while_it_starts_ends_it_at_once(setting: Setting) -> None:
    repository = setting.export("starting")
    command = [sys.executable, "-m", "inference_server", "--model_repository", str(repository)]
    ports = [str(port) for port in free_ports(2)]
    with (setting.folder / "starting.log").open("wb") as output:
        process = start_child([*command, "--port", ports[0], "--metrics_port", ports[1]], output=output)
    time.sleep(2)
    process.terminate()
    assert process.wait(10) == 0


def test_second_server_on_a_port_is_refused_on_any_address(setting: Setting, server: WatchedServer) -> None:
    done = reloads.run_command(
        "inference-server", "--model_repository", setting.folder / "served", "--host", "127.0.0.2", "--port",
        server.port, "--metrics_port", free_ports(1)[0],
    )  # fmt: skip
    assert done.returncode == 1
    assert f"another inference-server of yours runs on port {server.port}" in done.stderr


@pytest.mark.parametrize("removed", [(".json",), (".json", ".lock")], ids=["key", "key-and-lock"])
def test_server_goes_on_when_its_access_file_is_gone(setting: Setting, removed: Sequence[str]) -> None:
    """The end of a user's last session removes the whole folder."""
    repository = setting.export("cleaned")
    with watched_server("--model_repository", repository, log=setting.folder / "cleaned.log") as server:
        server.wait_until_said("ready at")
        for suffix in removed:
            access_file(server.port).with_suffix(suffix).unlink()
        time.sleep(1)
        assert find_access_file(server.port) == access_file(server.port)
        assert server.is_serving()
        assert f"ready at {server.url}" in server.said()
