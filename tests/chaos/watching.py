"""``inference-server --watch_base_data`` that is killed again and again while its base set follows the folder."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from inference_export.repository.contents import read_contents
from inference_server.triton.process import free_ports
from tests.chaos.load import Expected, expected_answers, is_right
from tests.chaos.reloads import run_command
from tests.chaos.tally import Tally
from tests.watched import WatchedServer, watched_server

LONGEST_S = 120.0


def kill_while_following(
    repository: Path, base: Path, images: Sequence[Path], *, cache: Path, times: int, log: Path
) -> Tally:
    """Kill the server at random moments of a sync.

    Each time, the repository must hold the old or the new base set, whole: the next commands read it, the next server
    answers by it, and follows the folder again.

    Args:
        repository: The repository.
        base: The base images that it was exported with. They are copied.
        images: The query images. The first one becomes a base image, and is taken away again.
        cache: Folder that keeps computed embeddings.
        times: Number of kills.
        log: File for the servers' output.
    """
    tally = Tally(what="kill -9 of inference-server during a sync", times=times)
    data = Path(shutil.copytree(base, repository.with_name(f"{repository.name}-base")))
    extra = min(data.iterdir()) / images[0].name
    (watch_port,) = free_ports(1)
    arguments = ("--model_repository", repository, "-data", data, "--cache", cache, "--watch_base_data",
                 "--watch_metrics_port", watch_port)  # fmt: skip
    chance = random.Random(times)
    states: dict[bool, Expected] = {}  # answers without and with the extra image
    with watched_server(*arguments, log=log) as server:
        for is_there in (True, False):
            _change(extra, images[0])
            _wait_until_followed(server, repository, data)
            states[is_there] = expected_answers(server.url, images)
        _change(extra, images[0])
        sync = _wait_for_sync(server)
        began_s = time.monotonic()
        sync.wait(LONGEST_S)
        whole_s = time.monotonic() - began_s
        _wait_until_followed(server, repository, data)
    news = 0
    for number in range(times):
        with watched_server(*arguments, log=log) as server:
            answers = expected_answers(server.url, images)
            fewest = min(_wrong(answers, state) for state in states.values())
            _wait_until_followed(server, repository, data)
            answers = expected_answers(server.url, images)
            wrong = max(fewest, _wrong(answers, states[extra.exists()]))
            tally.sent += len(images)
            tally.wrong += wrong
            tally.right += len(images) - wrong
            before = _names(data)
            _change(extra, images[0])
            sync = _wait_for_sync(server)
            # The files that may be left half-written come towards the end.
            time.sleep(whole_s * chance.uniform(0.0 if number % 2 else 0.7, 1.1))
            server.process.kill()
            server.process.wait()
            psutil.wait_procs([sync], LONGEST_S)
        listed = _listed(repository)
        assert listed in (before, _names(data)), listed
        news += listed == _names(data)
    done = run_command("base-set", "sync", "-data", data, "--model_repository", repository, "--cache", cache)
    assert done.returncode == 0, done.stderr
    assert _listed(repository) == _names(data)
    left = list(repository.parent.glob(f".{repository.name}*"))
    assert not left, left
    tally.notes.append(f"after the kill: {news} times the new base set, {times - news} times the old one")
    return tally


def _change(extra: Path, image: Path) -> None:
    if extra.exists():
        extra.unlink()
    else:
        shutil.copy(image, extra)


def _names(data: Path) -> list[str]:
    return sorted(f"{file.parent.name}/{file.name}" for file in data.glob("*/*"))


def _listed(repository: Path) -> list[str]:
    done = run_command("base-set", "list", "--model_repository", repository, "--json")
    assert done.returncode == 0, done.stderr
    return sorted(json.loads(done.stdout)["images"])


def _wait_until_followed(server: WatchedServer, repository: Path, data: Path) -> None:
    """Wait until the repository holds the images of the folder, and no sync is under way any more."""
    deadline_s = time.monotonic() + LONGEST_S
    while True:
        base = read_contents(repository).base
        if base is not None and sorted(base.names()) == _names(data) and not server.syncs():
            return
        assert time.monotonic() < deadline_s, server.said()[-3000:]
        time.sleep(0.1)


def _wait_for_sync(server: WatchedServer) -> psutil.Process:
    deadline_s = time.monotonic() + LONGEST_S
    while not (syncs := server.syncs()):
        assert time.monotonic() < deadline_s, server.said()[-3000:]
        time.sleep(0.01)
    return syncs[0]


def _wrong(answers: Expected, expected: Expected) -> int:
    """Count the answers that differ from the expected ones."""
    results = {image: {"Label": label, "Probability": probability} for image, (label, probability) in answers.items()}
    return sum(not is_right(results[image], answer) for image, answer in expected.items())
