"""The small image, as its page runs it: the original server's own folders, and one command."""

from __future__ import annotations

import time
from collections.abc import Iterator

from inference_client import Classify
from tests.chaos.load import Expected, Load, expected_answers
from tests.chaos.tally import Tally
from tests.containers.place import Place, exit_code
from tests.containers.stack import KILL_MODEL, wait_until

EXPORTING, SERVING = "classify", "classify-export"
STOP_S = 45


def run_without_gpu(place: Place) -> Iterator[Tally]:
    """Export and serve the resources of the original's paths, change the base set, and serve another export."""
    docker = place.engine.docker
    place.without_gpu.run_until("--target export")
    tally = Tally(what="trained resources served", times=1)
    seconds = place.without_gpu.run_until(f"docker run -d --name {EXPORTING}")
    tally.notes.append(f"answered {seconds:.0f} s after the first start, which exports; {_memory(place, EXPORTING)}")
    url = "http://127.0.0.1:8080"
    before = expected_answers(url, place.setting.images)
    with Load(url, [before], tally, clients=2, pause_s=0.05) as load:
        place.without_gpu.run_until("base-set sync")
        with Classify(url, details=True) as classify:
            (entry,), _ = classify(place.clone / "a.jpg")
        assert entry["Neighbors"][0]["Image"].endswith("/one-more.jpg"), entry
        load.expected.append(expected_answers(url, place.setting.images))
    tally.notes += load.failures[:3]
    _stop(place, EXPORTING)
    docker("start", EXPORTING)
    tally.notes.append(f"healthy {place.engine.wait_until_healthy(EXPORTING):.0f} s after the second start")
    _stop(place, EXPORTING)
    yield tally

    tally = Tally(what="export served read-only", times=1)
    seconds = place.without_gpu.run_until(f"docker run -d --name {SERVING}")
    place.without_gpu.run_rest()
    url = "http://127.0.0.1:8081"
    expected: Expected = expected_answers(url, place.setting.images)
    with Load(url, [expected], tally, clients=2, pause_s=0.05) as load:
        docker("exec", SERVING, "python3", "-c", KILL_MODEL)
        wait_until(lambda: place.engine.has_said(SERVING, "was restarted in"))
        time.sleep(1)
    healthy_s = place.engine.wait_until_healthy(SERVING)
    tally.notes += [
        f"exported and answered after {seconds:.0f} s, healthy {healthy_s:.0f} s later",
        _memory(place, SERVING),
    ]
    tally.notes += load.failures[:3]
    _stop(place, SERVING)
    yield tally


def _memory(place: Place, container: str) -> str:
    used = place.engine.docker("stats", "--no-stream", "--format", "{{.MemUsage}}", container).partition(" /")[0]
    return f"{used} of memory"


def _stop(place: Place, container: str) -> None:
    place.engine.docker("stop", "--time", STOP_S, container)
    code = exit_code(place.engine, container)
    assert code == 0, f"SIGTERM ended {container} with code {code}:\n{place.engine.logs(container)}"
