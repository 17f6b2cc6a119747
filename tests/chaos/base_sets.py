"""Changes of the base set of a running server, one after another, under load."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference_client import Classify
from inference_export.repository.contents import read_contents
from tests.chaos.load import Load, expected_answers
from tests.chaos.reloads import BEFORE_S, run_command
from tests.chaos.tally import Tally
from tests.watched import WatchedServer

CLIENTS, PAUSE_S = 1, 0.1  # about half of what two cores can answer
# All processes that decode grow while they decode their first images.
WARM_UP_CLIENTS, WARM_UP_S = 8, 30.0
BEFORE_TIMED_S = 60.0
MOST_LONGER_S = 0.3
MOST_GROWTH = 0.05


def change_under_load(
    server: WatchedServer, repository: Path, base: Path, images: Sequence[Path], *, times: int, timed: bool = True
) -> Tally:
    """Add an image to the base set and take it away again, and go back a version, under load.

    Args:
        server: Serves the repository.
        repository: The repository.
        base: The base images that it was exported with. They are copied.
        images: The query images. The first one becomes a base image, so it is its own nearest neighbor.
        times: Number of changes, at least 3.
        timed: Whether to take the time for good figures, and to assert the growth of memory.
    """
    tally = Tally(what="base-set: add, remove, rollback", times=times)
    data = Path(shutil.copytree(base, repository.with_name(f"{repository.name}-base")))
    class_name = min(folder.name for folder in data.iterdir())
    name = f"{class_name}/{images[0].name}"
    commands = (
        ("add", class_name, images[0], "-data", data),
        ("remove", name, "-data", data, "--to", repository.with_name(f"{repository.name}-removed")),
    )
    took_s, memory = [], []
    expected = expected_answers(server.url, images)
    if timed:
        with Load(server.url, [expected], tally, clients=WARM_UP_CLIENTS):
            time.sleep(WARM_UP_S)
    with Load(server.url, [expected], tally, clients=CLIENTS, pause_s=PAUSE_S) as load:
        time.sleep(BEFORE_TIMED_S if timed else BEFORE_S)
        began_s = time.monotonic()
        for number in range(times):
            command = ("rollback",) if number == times - 1 else commands[number % 2]
            started_s = time.monotonic()
            found = _change(repository, *command)
            assert found["servers"] == [server.port]
            assert found["version"] != found["version_before"]
            assert _answering(server.url, images[0]) == found["version"]
            took_s.append(time.monotonic() - started_s)
            if number in (0, times - 1):  # the system holds the processes up while it counts their pages
                memory.append(_memory_bytes(server))
            if len(load.expected) < len(commands):
                load.expected.append(expected_answers(server.url, images))
            if command[0] == "remove":
                shutil.rmtree(repository.with_name(f"{repository.name}-removed"))
    usual_s = max(seconds for began, seconds in load.seconds if began + seconds < began_s)
    during_s = [seconds for began, seconds in load.seconds if began + seconds >= began_s]
    late = sum(seconds > usual_s + MOST_LONGER_S for seconds in during_s)
    growth = memory[-1] / memory[0] - 1
    tally.notes += [
        f"from a command's start to an answer with its version: {max(took_s):.1f} s at most",
        f"the slowest request took {max(during_s) - usual_s:.2f} s longer than before; {late} of {len(during_s)} took "
        f"over {MOST_LONGER_S} s longer",
        f"memory after the last change against the first: {growth:+.1%}",
        *load.failures[:3],
    ]
    assert not timed or growth <= MOST_GROWTH, tally.notes
    return tally


def kill_syncs(repository: Path, data: Path, extra: Path, *, cache: Path, times: int) -> Tally:
    """Kill ``base-set sync`` at random moments. The old base set or the new one is there, whole, and a sync works.

    Args:
        repository: The repository.
        data: The base images that it follows. They are changed.
        extra: An image that becomes a base image, and is taken away again.
        cache: Folder that keeps computed embeddings.
        times: Number of kills.
    """
    tally = Tally(what="kill -9 of base-set sync", times=times)
    arguments = ("-data", data, "--cache", cache, "--model_repository", repository, "--json")
    command = [sys.executable, "-m", "inference_server.base_set.command", "sync", *map(str, arguments)]
    copy = min(folder for folder in data.iterdir() if folder.is_dir()) / extra.name
    began_s = time.monotonic()
    subprocess.run(command, capture_output=True, check=True)
    takes_s = time.monotonic() - began_s
    before = _names(repository)
    after = sorted([*before, f"{copy.parent.name}/{copy.name}"])
    chance = random.Random(times)
    changed = 0
    for _ in range(times):
        shutil.copy(extra, copy) if not copy.exists() else copy.unlink()
        there = _names(repository)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(takes_s * chance.uniform(0.3, 1.1))
            process.kill()
        names = _names(repository)
        assert names in (before, after), names
        changed += names != there
    assert _change(repository, "sync", *arguments[:4])["base_images"]
    assert _names(repository) == (after if copy.exists() else before)
    tally.notes.append(f"{changed} of {times} left the new base set, the others the old one")
    return tally


def _names(repository: Path) -> list[str]:
    """Read the names of the base images, which checks that all files of the version belong together."""
    contents = read_contents(repository)
    assert contents.base is not None
    return sorted(contents.base.names())


def _change(repository: Path, *arguments: object) -> dict[str, Any]:
    done = run_command("base-set", *arguments, "--model_repository", repository, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _answering(url: str, image: Path) -> int:
    with Classify(url, details=True) as classify:
        results, status = classify(image)
    assert status == 200, results
    (entry,) = results
    return int(entry["Version"])


def _memory_bytes(server: WatchedServer) -> int:
    """Memory of tritonserver and its models' processes; what they share is divided between them."""
    triton = server.tritonserver()
    return sum(process.memory_full_info().pss for process in (triton, *triton.children(recursive=True)))
