"""A load of ``Classify`` in a process of its own, which counts answers by the second."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inference_client import Classify
from inference_server.triton.process import start_child, stop

THREADS = 4
IMAGES_PER_CALL = 4


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What the load has seen in a time: images answered, answers that were lost, and wrong ones."""

    images: int
    lost: int
    wrong: int


@dataclass(frozen=True, kw_only=True)
class Load:
    """A load that runs.

    Attributes:
        file: What it writes: a line of JSON for each second.
    """

    file: Path

    def counts(self, begin_s: float, end_s: float) -> Counts:
        """Sum up what was counted between two times, on the monotonic clock."""
        total: Counter[str] = Counter()
        for line in self.file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):  # the last line may not be complete
                values = json.loads(line)
                if begin_s <= values.pop("at_s") < end_s:
                    total.update(values)
        return Counts(images=total["images"], lost=total["lost"], wrong=total["wrong"])


@contextlib.contextmanager
def running_load(url: str, files: list[Path], labels: list[str], folder: Path) -> Iterator[Load]:
    """Classify files over and over until the context ends.

    Args:
        url: The server.
        files: The images.
        labels: The right label of each.
        folder: Folder for what the load writes.
    """
    (folder / "load.json").write_text(json.dumps({"files": list(map(str, files)), "labels": labels}))
    file = folder / "load.txt"
    with file.open("wb") as output:
        process = start_child(
            [sys.executable, "-m", "tests.console.load", url, str(folder / "load.json")], output=output
        )
    try:
        yield Load(file=file)
        if process.poll() is not None:
            raise subprocess.CalledProcessError(process.returncode, "load", file.read_text())
    finally:
        stop(process)


def _run(url: str, plan: Path) -> None:
    values = json.loads(plan.read_text())
    images = [Path(file).read_bytes() for file in values["files"]]
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def ask(first: int) -> None:
        with Classify(url) as classify:
            place = first
            while True:
                places = [(place + offset) % len(images) for offset in range(IMAGES_PER_CALL)]
                place += IMAGES_PER_CALL
                results, status = classify([images[each] for each in places])
                right = [values["labels"][each] for each in places]
                with lock:
                    if status == 200:
                        counts["images"] += len(places)
                        counts["wrong"] += sum(
                            entry["Label"] != label for entry, label in zip(results, right, strict=True)
                        )
                    else:
                        counts["lost"] += len(places)

    for number in range(THREADS):
        threading.Thread(target=ask, args=(number * IMAGES_PER_CALL,), daemon=True).start()
    while True:
        time.sleep(1)
        with lock:
            print(json.dumps({"at_s": time.monotonic(), **counts}), flush=True)
            counts.clear()


if __name__ == "__main__":
    _run(sys.argv[1], Path(sys.argv[2]))
