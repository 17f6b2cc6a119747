"""Decides when to give up on something that fails again and again."""

from __future__ import annotations

import time
from collections import Counter

LASTING_S = 10.0  # a replacement that runs this long counts as a success
MOST_FAILURES = 5  # in a row


class GivenUpError(Exception):
    """Something failed again and again; the message says what."""


class Failures:
    """Counts the failures in a row, each soon after a replacement, of each model and of tritonserver."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._replaced_s: dict[str, float] = {}

    def add(self, name: str, reason: str) -> None:
        """Count a failure.

        Args:
            name: The model, or tritonserver.
            reason: What happened to it, in words.

        Raises:
            GivenUpError: It has failed more than ``MOST_FAILURES`` times in a row.
        """
        lasted_s = time.monotonic() - self._replaced_s.get(name, float("-inf"))
        self._counts[name] = 1 if lasted_s >= LASTING_S else self._counts[name] + 1
        if self._counts[name] > MOST_FAILURES:
            raise GivenUpError(f"{reason}, {self._counts[name]} times in a row, each time soon after it was replaced")

    def note_replacement(self, name: str) -> None:
        """Note that a replacement has just been started."""
        self._replaced_s[name] = time.monotonic()
