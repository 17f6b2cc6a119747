"""``inference-server --watch_base_data``: what is served follows the folder, and stays when the folder disappears."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
import tomllib
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from inference_client import Classify
from inference_client.command_line.extras import MissingExtraError, require_extras
from inference_export.changing import Difference
from inference_export.command import main as export_main
from inference_export.repository.locks import locked
from inference_export.repository.version_files import Settings
from inference_export.repository.versions import exported_version
from inference_server import start_plan
from inference_server.addresses import LOOPBACK
from inference_server.base_set import watching
from inference_server.base_set.changing import Outcome
from inference_server.base_set.report import outcome_from_json, outcome_json
from inference_server.base_set.snapshots import Snapshot, take_snapshot
from inference_server.base_set.sync_process import SyncResult, run_sync
from inference_server.base_set.watch_metrics import WATCH_PACKAGES, WatchMetrics
from inference_server.base_set.watching import FIRST_RETRY_S, LONGEST_RETRY_S, PAUSE_FACTOR, FolderWatch, QuietRule
from inference_server.command import main as server_main
from inference_server.supervision.watching import Watcher
from inference_server.triton.process import free_ports
from tests import tiny_network
from tests.base_set.conftest import Living
from tests.checkout import CHECKOUT
from tests.resources import write_faces
from tests.watched import WatchedServer, watched_server

DEADLINE_S = 90.0
PORT = 8080
REFUSED_PROGRAM = r"import sys; sys.exit('progress\nError: it is so.\n  Do that.')"


def _wait_until(is_so: Callable[[], object], what: Callable[[], object] = lambda: "") -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline_s, what()
        time.sleep(0.05)


# The rule, and what it sees.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base = tmp_path / "base"
    for name in ("face/1.png", "face/2.png", "other/1.png", "beside.txt"):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_text(name)
    return base


def _rewrite(file: Path) -> None:
    """Rewrite a file in place, with the same size and the same times of modification and access."""
    before = file.stat()
    file.write_text(file.read_text()[::-1])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _exchange(file: Path) -> None:
    """Put another file of the same size and modification time in place of a file."""
    other = file.with_name(".other")
    other.write_text(file.read_text()[::-1])
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _link(file: Path, target: str) -> None:
    file.unlink()
    file.symlink_to(target)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda base: (base / "face" / "3.png").touch(), id="image-added"),
        pytest.param(lambda base: (base / "face" / "1.png").unlink(), id="image-removed"),
        pytest.param(lambda base: (base / "face" / "1.png").rename(base / "face" / "3.png"), id="image-renamed"),
        pytest.param(lambda base: (base / "face" / "1.png").rename(base / "other" / "3.png"), id="image-moved"),
        pytest.param(lambda base: (base / "face" / "1.png").write_text("longer than before"), id="another-size"),
        pytest.param(lambda base: _rewrite(base / "face" / "1.png"), id="rewritten-with-its-old-time"),
        pytest.param(lambda base: _exchange(base / "face" / "1.png"), id="exchanged"),
        pytest.param(lambda base: _link(base / "face" / "1.png", "none"), id="broken-link"),
        pytest.param(lambda base: (base / "new").mkdir(), id="class-added"),
        pytest.param(lambda base: (base / "face").rename(base / "faces"), id="class-renamed"),
        pytest.param(lambda base: (base / "face" / "inner").mkdir(), id="folder-in-a-class"),
        pytest.param(lambda base: (base / "another.txt").touch(), id="file-beside-the-classes"),
        pytest.param(shutil.rmtree, id="gone"),
        pytest.param(_empty, id="emptied"),
    ],
)
def test_change_of_the_folder_changes_its_snapshot(folder: Path, change: Callable[[Path], object]) -> None:
    before = take_snapshot(folder)
    change(folder)
    assert take_snapshot(folder) != before


def test_what_is_no_change_leaves_the_snapshot(folder: Path) -> None:
    before = take_snapshot(folder)
    (folder / "face" / ".1.png.partial").write_text("a copy that goes on")
    (folder / ".hidden").mkdir()
    (folder / "beside.txt").write_text("another text")
    for file in folder.rglob("*.png"):
        file.read_bytes()
    assert take_snapshot(folder) == before
    away = folder.with_name("away")
    folder.rename(away)
    gone = take_snapshot(folder)
    assert gone == take_snapshot(folder) != before
    folder.mkdir()
    assert take_snapshot(folder) not in (gone, before)
    folder.rmdir()
    away.rename(folder)
    assert take_snapshot(folder) == before


A, B, C = (Snapshot(entries=1, digest=digest) for digest in range(3))


def _decisions(*snapshots: Snapshot, refused: tuple[Snapshot, ...] = ()) -> str:
    """Show a rule some snapshots, one a second, and return ``S`` for each sync, ``.`` for none."""
    rule = QuietRule()
    decisions = ""
    for now_s, snapshot in enumerate(snapshots):
        is_due = rule.is_due(snapshot, now_s)
        decisions += "S" if is_due else "."
        if is_due:
            rule.note_sync(refused=snapshot in refused, began_s=now_s, now_s=now_s)
    return decisions


def test_sync_starts_once_a_changed_folder_has_been_quiet() -> None:
    assert _decisions(A, A, A, A) == ".S.."
    assert _decisions(A, A, B, C, B, C, C, C) == ".S....S."
    assert _decisions(A, A, B, A, A) == ".S...", "the folder is as it was synced"


def test_refused_sync_is_repeated_at_once_if_the_folder_changes_and_otherwise_ever_more_rarely() -> None:
    assert _decisions(A, A, B, B, B, C, C, refused=(B,)) == ".S.S..S"
    assert _decisions(A, A, B, B, A, A, refused=(B,)) == ".S.S.S", "nobody knows what the refused sync has changed"
    rule = QuietRule()
    rule.is_due(A, 0)
    times = [now_s for now_s in range(1, 4000) if _refuse_if_due(rule, A, now_s)]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[:4] == [FIRST_RETRY_S, 2 * FIRST_RETRY_S, 4 * FIRST_RETRY_S, 8 * FIRST_RETRY_S]
    assert set(pauses[6:]) == {LONGEST_RETRY_S}


def test_long_refused_sync_is_repeated_so_rarely_that_it_takes_a_small_share_of_the_time() -> None:
    rule = QuietRule()
    rule.is_due(A, 0)
    assert rule.is_due(A, 1)
    rule.note_sync(refused=True, began_s=1, now_s=101)
    assert not rule.is_due(A, 100 + 100 * PAUSE_FACTOR)
    assert rule.is_due(A, 101 + 100 * PAUSE_FACTOR)


def _refuse_if_due(rule: QuietRule, snapshot: Snapshot, now_s: float) -> bool:
    is_due = rule.is_due(snapshot, now_s)
    if is_due:
        rule.note_sync(refused=True, began_s=now_s, now_s=now_s)
    return is_due


# The watch, with a real folder and without a server.


def _outcome(version: int, before: int, servers: list[int]) -> Outcome:
    return Outcome(
        repository=Path("/repository"),
        before=before,
        version=version,
        difference=Difference(added=["face/1.png"], removed=[], replaced=[]),
        settings=Settings(mode="clustering", classes=["face"], neighbors=5, threshold=0.75, unknown_label="unknown"),
        class_sizes={"face": 1},
        servers=servers,
        notes=["a note"],
    )


def test_result_survives_the_way_between_the_processes() -> None:
    outcome = _outcome(2, 1, [PORT])
    assert outcome_from_json(json.loads(json.dumps(outcome_json(outcome)))) == outcome


def test_file_that_is_being_written_is_waited_for(folder: Path) -> None:
    file = folder / "face" / "slow.png"
    seen: list[tuple[int, float]] = []

    def sync(_: threading.Event) -> SyncResult:
        status = file.stat() if file.exists() else folder.stat()
        seen.append((status.st_size, time.time() - status.st_mtime))
        return SyncResult(outcome=_outcome(len(seen) + 1, len(seen), [PORT]))

    with FolderWatch(folder, sync, port=PORT, metrics=WatchMetrics()).running():
        _wait_until(lambda: seen)
        with file.open("wb", buffering=0) as writing:
            for _ in range(60):
                writing.write(b"x" * 100)
                time.sleep(0.05)
        _wait_until(lambda: seen[-1][0] == 6000, lambda: seen)
    assert all(quiet_s >= 0.99 for _, quiet_s in seen[1:]), seen


def test_refusals_are_said_once_for_each_change_and_counted_and_so_is_their_end(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = WatchMetrics()
    counted: Counter[str] = Counter(changed=0, unchanged=0, refused=0)
    results: list[SyncResult] = []

    def expect(count: str, result: SyncResult) -> None:
        """Change the folder, answer its sync with a result, and wait until it has been counted."""
        results.append(result)
        (folder / "face" / f"another{len(results)}.png").touch()
        counted[count] += 1
        follows = count != "refused"
        _wait_until(lambda: _counts(_text(metrics)) == counted, lambda: _text(metrics))
        _wait_until(lambda: _value(_text(metrics), "follows_folder") == follows, lambda: _text(metrics))
        assert bool(_value(_text(metrics), "last_sync_timestamp_seconds")) == follows

    watch = FolderWatch(folder, lambda _: results[-1], port=PORT, metrics=metrics, quiet_s=0.05)
    results.append(SyncResult(refusal="it is empty"))
    with watch.running():
        counted["refused"] += 1
        _wait_until(lambda: _counts(_text(metrics)) == counted)
        expect("refused", SyncResult(refusal="it is empty"))
        expect("refused", SyncResult(outcome=_outcome(2, 1, servers=[])))
        expect("unchanged", SyncResult(outcome=_outcome(2, 2, servers=[PORT])))
        expect("changed", SyncResult(outcome=_outcome(3, 2, servers=[PORT])))
    said = capsys.readouterr().err
    assert said.count("the base set stays as it is: it is empty") == 2
    assert f"version 2 is in the repository, but the server on port {PORT} was not found" in said
    assert said.count(f"the base set follows {folder} again") == 1
    assert f"{folder} has changed: version 3, in place of 2: images: 1 added" in said
    assert said.index("again") < said.index("version 3")


def test_retry_that_is_refused_for_the_same_reason_is_counted_and_not_said_again(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(watching, "LONGEST_RETRY_S", 0.01)
    metrics = WatchMetrics()
    result = SyncResult(refusal="it is empty")
    with FolderWatch(folder, lambda _: result, port=PORT, metrics=metrics, quiet_s=0.01).running():
        _wait_until(lambda: _counts(_text(metrics))["refused"] >= 3)
        result = SyncResult(refusal="the disk is full")
        refused = _counts(_text(metrics))["refused"]
        _wait_until(lambda: _counts(_text(metrics))["refused"] >= refused + 3)
        result = SyncResult(outcome=_outcome(1, 1, servers=[PORT]))
        _wait_until(lambda: _value(_text(metrics), "follows_folder"))
    said = capsys.readouterr().err
    assert [said.count(text) for text in ("it is empty", "the disk is full", "follows")] == [1, 1, 1]


def _text(metrics: WatchMetrics) -> str:
    from prometheus_client import generate_latest

    return generate_latest(metrics.registry).decode()


def _counts(text: str) -> dict[str, int]:
    found = re.findall(r'^classify_base_set_syncs_total\{result="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {result: int(float(value)) for result, value in found}


def _value(text: str, name: str) -> float:
    (value,) = re.findall(rf"^classify_base_set_{name} (\S+)$", text, re.MULTILINE)
    return float(value)


@pytest.mark.parametrize(
    ("program", "says"),
    [
        pytest.param(REFUSED_PROGRAM, "it is so.\n  Do that.", id="refused"),
        pytest.param("import os; os.kill(os.getpid(), 9)", "killed by signal 9. Is there enough memory?", id="killed"),
        pytest.param("1 / 0", "ZeroDivisionError: division by zero", id="crashed"),
        pytest.param("print('{}')", "Restart the server.", id="another-version"),
    ],
)
def test_sync_that_fails_in_any_way_is_a_refusal_with_a_reason(program: str, says: str) -> None:
    result = run_sync([sys.executable, "-c", program], threading.Event())
    assert result is not None
    assert result.outcome is None
    assert result.refusal.endswith(says)
    assert "progress" not in result.refusal


def test_program_that_can_not_be_started_is_a_refusal() -> None:
    result = run_sync(["/no/such/program"], threading.Event())
    assert result is not None
    assert "can't be started" in result.refusal


def test_sync_is_ended_with_the_watch() -> None:
    stopping = threading.Event()
    threading.Timer(0.5, stopping.set).start()
    assert run_sync([sys.executable, "-c", "import time; time.sleep(600)"], stopping) is None
    assert not [child for child in psutil.Process().children() if "time.sleep(600)" in child.cmdline()]


# A real server.


@dataclass(frozen=True, kw_only=True)
class Following:
    """A server that follows the folder of a repository."""

    server: WatchedServer
    living: Living
    watch_port: int

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self.watch_port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def refused(self) -> int:
        return _counts(self.metrics())["refused"]

    def follows(self) -> bool:
        return _value(self.metrics(), "follows_folder") == 1

    def nearest(self, image: Path) -> str:
        """Classify an image and return its nearest base image."""
        with Classify(self.server.url, details=True) as classify:
            results, status = classify(image)
        assert status == 200, results
        return str(results[0]["Neighbors"][0]["Image"])

    def images(self) -> list[str]:
        """The images that the repository answers with."""
        return sorted(self.living.ask("list", images=False)["images"])

    def wait_until_served(self, *images: str) -> None:
        """Wait until the base set holds these images and nothing else, and the server answers with it."""
        _wait_until(lambda: self.follows() and self.images() == sorted(images), self.server.said)
        version = exported_version(self.living.repository)
        assert version is not None
        _wait_until(lambda: self._version() == version.number, self.server.said)

    def require_refused(self, spoil: Callable[[], object], says: str) -> None:
        """Spoil the folder, and check that what is served stays, and that this is said and counted."""
        before, version, refused = self.images(), self._version(), self.refused()
        spoil()
        _wait_until(lambda: self.refused() > refused, self.server.said)
        assert (self.images(), self._version(), self.follows()) == (before, version, False)
        stays = [line for line in self.server.said().split("the base set stays as it is: ")[1:] if says in line]
        assert stays, self.server.said()

    def _version(self) -> int:
        with Classify(self.server.url, details=True) as classify:
            results, status = classify(self.living.folder / "query.png")
        assert status == 200, results
        return int(results[0]["Version"])


@contextlib.contextmanager
def _following(living: Living, *arguments: object) -> Iterator[Following]:
    (query,) = write_faces(living.folder / "queries", [10], "q")
    query.rename(living.folder / "query.png")
    (watch_port,) = free_ports(1)
    given = ("-data", living.base, "--model_repository", living.repository, "--cache", living.cache,
             "--watch_base_data", "--watch_metrics_port", watch_port, *arguments)  # fmt: skip
    with watched_server(*given, log=living.folder / "log") as server:
        server.wait_until_said("ready at")
        _wait_until(lambda: _answers(watch_port), server.said)
        yield Following(server=server, living=living, watch_port=watch_port)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=10):
        return True
    return False


def _names(base: Path) -> list[str]:
    return [f"{file.parent.name}/{file.name}" for file in base.glob("*/*")]


@pytest.mark.slow
def test_added_images_are_served_and_a_file_that_is_being_written_is_not(living: Living) -> None:
    write_faces(living.base / "face", [5], "before-the-start")
    with _following(living) as following:
        following.wait_until_served(*_names(living.base))
        (image,) = write_faces(living.base / "other", [60], "new")
        following.wait_until_served(*_names(living.base))
        assert following.nearest(image) == "other/new060.png"
        assert "version 3, in place of 2: images: 1 added" in following.server.said()
        (whole,) = write_faces(living.folder / "elsewhere", [70], "slow")
        content, before = whole.read_bytes(), following.images()
        with (living.base / "face" / "slow.png").open("wb", buffering=0) as copy:
            for position in range(0, len(content), len(content) // 40 + 1):
                copy.write(content[position : position + len(content) // 40 + 1])
                assert following.images() == before
        following.wait_until_served(*_names(living.base))
        assert following.nearest(whole) == "face/slow.png"


@pytest.mark.slow
def test_folder_that_disappears_or_comes_back_in_part_is_no_change(living: Living) -> None:
    images = _names(living.base)
    away = living.folder / "away"
    with _following(living) as following:
        following.wait_until_served(*images)
        following.require_refused(lambda: living.base.rename(away), "can't be read (No such file or directory)")
        following.require_refused(living.base.mkdir, "Is a volume not mounted there?")
        following.require_refused((living.base / "face").mkdir, "holds no image")
        following.require_refused(lambda: _copy(away, living.base, images[:1]), "has only one class")
        following.require_refused(lambda: _copy(away, living.base, images[-1:]), "5 of 7 base images would go")
        _copy(away, living.base, images)
        following.wait_until_served(*images)
        assert "the base set follows" in following.server.said()
        assert exported_version(living.repository).number == 1, "nothing was lost, so nothing had to come back"
        few = [image for image in images if image not in images[:2] + images[-2:]]
        following.require_refused(lambda: _remove(living.base, few + images[:1]), "4 of 7 base images would go")
        assert living.ask("sync", "--yes")["servers"] == [following.server.port]
        following.wait_until_served(*_names(living.base))


def _copy(source: Path, target: Path, images: list[str]) -> None:
    for image in images:
        (target / image).parent.mkdir(exist_ok=True)
        shutil.copy(source / image, target / image)


def _remove(base: Path, images: list[str]) -> None:
    for image in images:
        (base / image).unlink()


@pytest.mark.slow
def test_undecodable_file_is_refused_until_it_is_complete_and_supervision_goes_on_meanwhile(living: Living) -> None:
    (whole,) = write_faces(living.folder / "elsewhere", [60], "new")
    stalled = living.base / "face" / "stalled.png"
    with _following(living) as following:
        following.wait_until_served(*_names(living.base))
        following.require_refused(
            lambda: stalled.write_bytes(whole.read_bytes()[:200]), "1 of 8 base images do not decode"
        )
        with locked(living.repository):  # a sync waits as long as another command changes the repository
            stalled.write_bytes(whole.read_bytes())
            _wait_until(following.server.syncs, following.server.said)
            following.server.model_process("cluster_head").kill()
            following.server.wait_until_said("replaced in")
            assert following.server.syncs()
            assert not following.follows()
        following.wait_until_served(*_names(living.base))
        assert following.nearest(whole) == "face/stalled.png"


@pytest.mark.slow
def test_undecodable_file_may_be_left_out(living: Living) -> None:
    names = _names(living.base)
    with _following(living, "--skip_unreadable") as following:
        (living.base / "face" / "broken.png").write_text("no image")
        following.server.wait_until_said("base images left out, undecodable")
        following.wait_until_served(*names)
        assert following.refused() == 0


@pytest.mark.slow
@pytest.mark.parametrize("signals", [1, 2], ids=["sigterm", "sigterm-twice"])
def test_sigterm_during_a_sync_ends_both_cleanly(living: Living, signals: int) -> None:
    with _following(living) as following:
        following.wait_until_served(*_names(living.base))
        with locked(living.repository):
            write_faces(living.base / "face", [60], "new")
            _wait_until(following.server.syncs, following.server.said)
            (sync,) = following.server.syncs()
            for _ in range(signals):
                following.server.process.send_signal(signal.SIGTERM)
            assert following.server.process.wait(DEADLINE_S) == 0
            assert not sync.is_running()
    assert not list(living.folder.glob(".model_repository*"))
    assert living.ask("sync")["version"] == 2


@pytest.mark.slow
def test_sync_dies_with_a_server_that_is_killed(living: Living) -> None:
    with _following(living) as following:
        following.wait_until_served(*_names(living.base))
        with locked(living.repository):
            write_faces(living.base / "face", [60], "new")
            _wait_until(following.server.syncs, following.server.said)
            (sync,) = following.server.syncs()
            following.server.process.kill()
            sync.wait(DEADLINE_S)


@pytest.mark.slow
def test_start_with_resources_follows_too_and_serves_what_it_has_where_the_folder_is_gone(living: Living) -> None:
    resources = ("-r", living.folder / "trained", "--network", tiny_network.NETWORK)
    images = _names(living.base)
    away = living.base.rename(living.folder / "away")
    living.base.mkdir()
    with _following(living, *resources) as following:
        assert "is served as it is" in following.server.said()
        _wait_until(following.refused, following.server.said)
        living.base.rmdir()
        away.rename(living.base)
        following.wait_until_served(*images)
    (living.base / "face" / "broken.png").write_text("no image")
    with _following(living, *resources) as following:
        assert "warning: the base set stays as it is. 1 of 8 base images do not decode" in following.server.said()
        (living.base / "face" / "broken.png").unlink()
        following.wait_until_served(*images)


# Wrong usage.


def _start(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(server_main, list(map(str, arguments)))
    return done.exit_code, done.stderr


def test_watch_without_base_data_is_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_plan, "DEFAULT_BASE_DATA", tmp_path / "none")
    code, said = _start("--model_repository", tmp_path, "--watch_base_data")
    assert (code, "has no folder to watch" in said) == (2, True), said
    code, said = _start("--model_repository", tmp_path, "-data", tmp_path)
    assert (code, "has no effect without -r" in said) == (2, True), said
    code, said = _start("-r", tmp_path, "-data", tmp_path, "--mode", "classification", "--watch_base_data")
    assert (code, "contradicts --watch_base_data" in said) == (2, True), said


@pytest.mark.slow
def test_default_folder_is_watched(living: Living, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start_plan, "DEFAULT_BASE_DATA", living.base)
    monkeypatch.setattr(Watcher, "run", lambda _: 0)
    ports = free_ports(3)
    code, said = _start("--model_repository", living.repository, "--watch_base_data", "--port", ports[0],
                        "--metrics_port", ports[1], "--watch_metrics_port", ports[2])  # fmt: skip
    assert code == 0, said


@pytest.mark.slow
def test_watch_of_a_repository_without_a_base_set_and_a_taken_port_are_refused(living: Living) -> None:
    arguments = ["-r", living.folder / "trained", "--network", tiny_network.NETWORK, "--mode", "classification",
                 "--model_repository", living.folder / "another"]  # fmt: skip
    assert CliRunner().invoke(export_main, list(map(str, arguments))).exit_code == 0
    ports = free_ports(2)
    watching = ("-data", living.base, "--watch_base_data", "--port", ports[0], "--metrics_port", ports[1])
    code, said = _start("--model_repository", living.folder / "another", *watching)
    assert code == 1, said
    assert "answers in classification mode, and has no base set that could follow" in said
    assert "Leave --watch_base_data out, or export with" in said
    with WatchMetrics().served(LOOPBACK, ports[0]):
        code, said = _start("--model_repository", living.repository, *watching[:2], "--watch_base_data",
                            "--watch_metrics_port", ports[0])  # fmt: skip
    assert code == 1, said
    assert f"{LOOPBACK}:{ports[0]} can't be listened on" in said
    assert "--watch_metrics_port" in said


def test_package_that_only_a_watch_needs_is_in_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in ("server", "gpu"):
        for package in WATCH_PACKAGES:
            assert any(line.startswith(package) for line in extras[extra])
    with pytest.raises(MissingExtraError, match=r"missing: no-such-package\..*\n  pip install .*\[server\]"):
        require_extras("server", also=("no-such-package",))
