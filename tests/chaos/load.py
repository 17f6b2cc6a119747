"""A load that checks every answer."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

from inference_client import Classify, transport
from inference_client.failures import may_pass
from tests.chaos.tally import Tally

TIMEOUT_S = 30.0
LATE_S = 1.0
TOLERANCE = 1e-3
Expected = Mapping[Path, tuple[str, float]]


def is_right(entry: Any, answer: tuple[str, float]) -> bool:
    """Compare an image's entry in the results with the right answer."""
    label, probability = answer
    return bool(entry["Label"] == label and abs(entry["Probability"] - probability) <= TOLERANCE)


def expected_answers(url: str, images: Sequence[Path], **options: Any) -> dict[Path, tuple[str, float]]:
    """Get the right answers from a calm server; ``options`` are those of ``Classify``."""
    with Classify(url, **options) as classify:
        results, status = classify(list(images))
    assert status == 200, results
    return {image: (entry["Label"], entry["Probability"]) for image, entry in zip(images, results, strict=True)}


class Load:
    """Independent clients that classify the same images again and again while the context is open.

    Args:
        url: The server's URL.
        expected: Right answers, by each version that may answer. All answers of a call come from one version. More
            versions may be added to ``expected`` while the context is open.
        tally: Gets the counts.
        clients: Number of threads.
        timeout_s: Timeout of each call. A service that is back within it must answer.
        pause_s: Pause between a client's calls.
        may_refuse: Statuses that count as refused, not as lost.
        options: More options of ``Classify``.
    """

    def __init__(
        self,
        url: str,
        expected: Sequence[Expected],
        tally: Tally,
        *,
        clients: int = 4,
        timeout_s: float = TIMEOUT_S,
        pause_s: float = 0.0,
        may_refuse: frozenset[int] = frozenset(),
        **options: Any,
    ) -> None:
        self._url = url
        self.expected = list(expected)
        self._images = list(expected[0])
        self._tally = tally
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._may_refuse = may_refuse
        self._options = options
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._answered = threading.Semaphore(0)
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]
        self._patch = patch.object(transport, "may_pass", self._count_retry)
        self._answers: list[tuple[Any, int]] = []
        self.seconds: list[tuple[float, float]] = []  # start and duration of each call
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        self._patch.start()
        for thread in self._threads:
            thread.start()
        for _ in self._threads:
            assert self._answered.acquire(timeout=self._timeout_s), "the server answers nothing before anything is done"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join(self._timeout_s + LATE_S)
            if thread.is_alive():
                self._tally.hung += len(self._images)
        self._patch.stop()
        for (results, status), (_, elapsed_s) in zip(self._answers, self.seconds, strict=True):
            self._count(results, status, elapsed_s)

    def statuses_of_calls_in_flight(self, moment_s: float) -> list[int]:
        """List the statuses of the calls whose requests the server had at a moment.

        A call reads and encodes its images first; that is over after a third of the time that calls usually take.
        """
        sent_s = statistics.median(took for began, took in self.seconds if began + took <= moment_s) / 3
        calls = zip(self.seconds, self._answers, strict=True)
        return [
            status for (began, took), (_, status) in calls if began <= moment_s - sent_s and began + took > moment_s
        ]

    def _count_retry(self, error: Exception, *, known: bool) -> bool:
        again = may_pass(error, known=known)
        with self._lock:
            self._tally.retried += again
        return again

    def _ask(self) -> None:
        with Classify(self._url, timeout_s=self._timeout_s, **self._options) as classify:
            while not self._done.is_set():
                began_s = time.monotonic()
                results, status = classify(list(self._images))
                elapsed_s = time.monotonic() - began_s
                with self._lock:
                    self.seconds.append((began_s, elapsed_s))
                    self._answers.append((results, status))
                self._answered.release()
                self._done.wait(self._pause_s)

    def _count(self, results: Any, status: int, elapsed_s: float) -> None:
        images = len(self._images)
        self._tally.slowest_s = max(self._tally.slowest_s, elapsed_s)
        self._tally.sent += images
        if elapsed_s > self._timeout_s + LATE_S:
            self._tally.hung += images
        elif status in self._may_refuse:
            self._tally.refused += images
        elif status not in {200, 207}:
            self._tally.lost += images
            self.failures.append(f"{status}: {results}")
        else:
            lost = sum(entry["Label"] is None for entry in results)
            wrong = min(self._count_wrong(results, version) for version in self.expected)
            self._tally.lost += lost
            self._tally.wrong += wrong
            self._tally.right += images - lost - wrong
            if lost or wrong:
                self.failures.append(f"{status}: {results}")

    def _count_wrong(self, results: Sequence[Mapping[str, Any]], version: Expected) -> int:
        return sum(
            entry["Label"] is not None and not is_right(entry, version[image])
            for image, entry in zip(self._images, results, strict=True)
        )
