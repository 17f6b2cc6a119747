"""Exports into a served repository, and changes of the served version, under load."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from click.testing import CliRunner, Result

from inference_export.command import main as export_main
from inference_export.repository.versions import exported_version
from tests.chaos.load import Expected, Load, expected_answers, is_right
from tests.chaos.tally import Tally
from tests.watched import WatchedServer

BEFORE_S = 3.0
AFTER_S = 1.0
MOST_LONGER_S = 1.0  # the aim is 0.3, which is mostly reached; docs/explanation/security.md has the measurements
# About half the capacity of two cores: at full capacity, loading would slow down every request.
CLIENTS = 2
PAUSE_S = 0.05


def run_command(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one of the project's commands, as a user would."""
    command = [str(Path(sys.executable).with_name(name)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def run_export(*arguments: object) -> Result:
    """Export as the command does, in this process: PyTorch is imported only once."""
    return CliRunner().invoke(export_main, list(map(str, arguments)))


def reload_under_load(
    server: WatchedServer, images: Sequence[Path], what: str, export: Sequence[object], *, timed: bool = True
) -> Tally:
    """Export another version, change to it under load, and back.

    Args:
        server: Serves the repository that is written.
        images: The query images.
        what: The change, in words.
        export: Arguments of the export.
        timed: Whether to assert the slowest request's time, on an otherwise idle machine.
    """
    tally = Tally(what=f"reload: {what}; and back")
    old: Expected = expected_answers(server.url, images)
    exported = run_export(*export)
    assert exported.exit_code == 0, exported.output
    longer_s = []
    for arguments in ((), ("--rollback",)):
        with Load(server.url, [old], tally, clients=CLIENTS, pause_s=PAUSE_S) as load:
            time.sleep(BEFORE_S)
            began_s = time.monotonic()
            done = run_command("reload-repository", "--port", server.port, *arguments)
            assert done.returncode == 0, done.stderr
            tally.times += 1
            time.sleep(AFTER_S)
            load.expected.append(expected_answers(server.url, images))
        assert _differ(*load.expected), "the change changed nothing"
        old = load.expected[1]
        usual_s = max(seconds for began, seconds in load.seconds if began + seconds < began_s)
        slowest_s = max(seconds for began, seconds in load.seconds if began + seconds >= began_s)
        longer_s.append(slowest_s - usual_s)
        tally.notes += load.failures[:3]
    tally.notes.append(f"the slowest request took {max(longer_s):.2f} s longer than before")
    assert not timed or max(longer_s) <= MOST_LONGER_S, tally.notes
    return tally


def refuse_broken_version(server: WatchedServer, repository: Path, images: Sequence[Path], broken: str) -> Tally:
    """Spoil a file of a new version. Under load, the server must refuse the new version and keep the old one.

    Args:
        server: Serves the repository.
        repository: The repository, into which a new version has been exported.
        images: The query images.
        broken: The file, with ``{}`` for the version's number.
    """
    tally = Tally(what=f"reload of a broken {broken.format('N')}", times=1)
    old = expected_answers(server.url, images)
    version = exported_version(repository)
    assert version is not None
    (repository / broken.format(version.number)).write_text("broken")
    said = _reload_in_vain(server, old, tally)
    assert "is refused" in said
    assert "the server keeps version" in said
    return tally


def refuse_other_shape(server: WatchedServer, images: Sequence[Path], export: Sequence[object]) -> Tally:
    """Export a version that a running server can't change to. It must say so and serve on, even if a process dies."""
    tally = Tally(what="reload of another image size", times=1)
    old = expected_answers(server.url, images)
    exported = run_export(*export)
    assert exported.exit_code == 0, exported.output
    said = _reload_in_vain(server, old, tally)
    assert "Restart inference-server" in said
    assert "dims" in said
    return tally


def _reload_in_vain(server: WatchedServer, old: Expected, tally: Tally) -> str:
    """Reload under load, which must be refused. Return the command's output."""
    with Load(server.url, [old], tally, clients=CLIENTS, pause_s=PAUSE_S) as load:
        done = run_command("reload-repository", "--port", server.port)
        time.sleep(AFTER_S)
    assert done.returncode == 1, done.stdout
    tally.notes += load.failures[:3]
    return done.stderr


def copy_base(base: Path, target: Path, *, without: str | None = None, also: str | None = None) -> Path:
    """Make another base set: without one class, or with half of one class renamed."""
    shutil.copytree(base, target)
    if without is not None:
        shutil.rmtree(target / without)
    if also is not None:
        largest = max(target.iterdir(), key=lambda folder: len(list(folder.iterdir())))
        (target / also).mkdir()
        for file in sorted(largest.iterdir())[::2]:
            file.rename(target / also / file.name)
    return target


def _differ(one: Expected, other: Expected) -> bool:
    return not all(
        is_right({"Label": label, "Probability": probability}, other[image])
        for image, (label, probability) in one.items()
    )
