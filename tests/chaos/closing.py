"""Clients that are closed at random moments, in the middle of their threads' calls."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from inference_client import Classify
from tests.chaos.load import LATE_S, Expected, is_right
from tests.chaos.tally import Tally

TIMEOUT_S = 30.0
CALLERS = 8
LATEST_MOMENT_S = 1.5
MOST_IMAGES = 3  # in a call: some calls are answered before the client is closed
SEED = 12


def close_during_calls(url: str, expected: Expected, times: int) -> Tally:
    """Close a client again and again while its threads are in calls and streams.

    An image whose call was cut off counts as refused, since the call says that the client is closed.

    Args:
        url: The server's URL.
        expected: Right answer for each image.
        times: Number of clients.
    """
    tally = Tally(what="close() during calls", times=times)
    moments = random.Random(SEED)
    longest_close_s = longest_end_s = 0.0
    left = 0
    images = list(expected)[:MOST_IMAGES]
    for _ in range(times):
        before = set(threading.enumerate())
        classify = Classify(url, timeout_s=TIMEOUT_S)
        callers = [_Caller(classify, images, streams=bool(number % 2)) for number in range(CALLERS)]
        time.sleep(moments.uniform(0, LATEST_MOMENT_S))
        began_s = time.monotonic()
        classify.close()
        closed_s = time.monotonic()
        for caller in callers:
            caller.join(max(0.0, closed_s + LATE_S - time.monotonic()))
            _count(tally, caller, expected)
            longest_end_s = max(longest_end_s, caller.ended_s - began_s)
        longest_close_s = max(longest_close_s, closed_s - began_s)
        left += _count_threads_left(before.union(callers))
    tally.notes.append(
        f"close() took {longest_close_s:.2f} s at most, and calls ended at most {longest_end_s:.2f} s after it began; "
        f"threads left: {left}"
    )
    assert not left, tally.notes
    return tally


def _count_threads_left(others: Collection[threading.Thread]) -> int:
    """Count the client's threads that do not end: a thread that is reading a file ends when it has read it."""
    threads = set(threading.enumerate()).difference(others)
    last_moment_s = time.monotonic() + LATE_S
    for thread in threads:
        thread.join(max(0.0, last_moment_s - time.monotonic()))
    return sum(thread.is_alive() for thread in threads)


class _Caller(threading.Thread):
    """A thread that classifies the images until its client is closed."""

    def __init__(self, classify: Classify, images: Sequence[Path], *, streams: bool) -> None:
        super().__init__(daemon=True)
        self._classify = classify
        self._images = images
        self._streams = streams
        self.answers: list[tuple[Path, object]] = []
        self.cut_off: int | None = None  # images without an answer; None unless the call ended as it should
        self.failure = ""
        self.ended_s = 0.0
        self.start()

    def run(self) -> None:
        """Classify until the client is closed."""
        while True:
            answered = len(self.answers)
            try:
                self._ask()
            except RuntimeError as error:
                if "closed" not in str(error):
                    self.failure = str(error)
                else:
                    self.cut_off = len(self._images) - (len(self.answers) - answered)
                break
            except Exception as error:
                self.failure = repr(error)
                break
        self.ended_s = time.monotonic()

    def _ask(self) -> None:
        if self._streams:
            entries = self._classify.stream(self._images)
            self.answers.extend((image, entry) for image, entry in zip(self._images, entries, strict=True))
        else:
            results, status = self._classify(list(self._images))
            if status != 200:
                raise ValueError(f"{status}: {results}")
            self.answers.extend(zip(self._images, results, strict=True))


def _count(tally: Tally, caller: _Caller, expected: Expected) -> None:
    right = sum(is_right(entry, expected[image]) for image, entry in caller.answers)
    tally.sent += len(caller.answers)
    tally.right += right
    tally.wrong += len(caller.answers) - right
    if caller.is_alive():
        tally.sent += MOST_IMAGES
        tally.hung += MOST_IMAGES
    elif caller.cut_off is None:
        tally.sent += MOST_IMAGES
        tally.lost += MOST_IMAGES
        tally.notes.append(caller.failure)
    else:
        tally.sent += caller.cut_off
        tally.refused += caller.cut_off
