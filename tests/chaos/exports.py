"""Exports that are killed at random moments."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from inference_server.triton.process import running_server
from tests.chaos.load import Expected, expected_answers
from tests.chaos.tally import Tally


def kill_exports(repository: Path, images: Sequence[Path], export: Sequence[object], times: int, log: Path) -> Tally:
    """Kill an export again and again. Each time, the repository must hold the old version or the whole new one.

    Args:
        repository: An exported repository, which is written again.
        images: The query images.
        export: Arguments of the export.
        times: Number of kills.
        log: File for the server's output.
    """
    tally = Tally(what="export killed at a random moment", times=times)
    command = [str(Path(sys.executable).with_name("export-repository")), *map(str, export)]
    chance = random.Random(times)
    began_s = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    whole_s = time.monotonic() - began_s
    expected: Expected | None = None
    for number in range(times):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # The files that may be left half-written come towards the end.
        time.sleep(whole_s * chance.uniform(0.2 if number % 2 else 0.7, 1.0))
        process.kill()
        process.wait()
        with running_server(repository, log=log) as server:
            answers = expected_answers(server.url, images)
        expected = expected or answers
        tally.sent += len(images)
        right = sum(answers[image][0] == expected[image][0] for image in images)
        tally.right += right
        tally.wrong += len(images) - right
    return tally
