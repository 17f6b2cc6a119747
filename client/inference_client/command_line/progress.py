"""Progress on stderr: a bar on a terminal, a line every few seconds in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta

import click

LINE_INTERVAL_S = 5.0
LONG_LIST_IMAGES = 32


def images_progress(images: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show the progress of classifying images, unless they are few."""
    return progress("Classifying", images) if images > LONG_LIST_IMAGES else nullcontext(_nothing)


@contextmanager
def progress(label: str, total: int, *, interval_s: float = LINE_INTERVAL_S) -> Iterator[Callable[[int], None]]:
    """Show how much of the work is done, and how much time is left.

    A terminal shows a bar. Elsewhere, a line is printed at most every ``interval_s``, and one at the end. Nothing is
    shown if there are no steps.

    Args:
        label: Name of the work, shown before the numbers.
        total: Number of steps, >= 0.
        interval_s: Shortest time between two lines, in seconds, >= 0.

    Yields:
        ``advance(count)``, to call with the number of steps done since the last call.
    """
    if total == 0:
        yield _nothing
        return
    if sys.stderr.isatty():
        with click.progressbar(length=total, label=label, file=sys.stderr, show_pos=True) as bar:
            yield bar.update
        return
    lines = _Lines(label, total, interval_s)
    try:
        yield lines.advance
    finally:
        lines.finish()


def _nothing(_count: int) -> None:
    pass


class _Lines:
    def __init__(self, label: str, total: int, interval_s: float) -> None:
        self._label = label
        self._total = total
        self._interval_s = interval_s
        self._done = 0
        self._printed: int | None = None
        self._began_s = self._last_line_s = time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        now_s = time.monotonic()
        if now_s - self._last_line_s >= self._interval_s:
            left_s = (now_s - self._began_s) / self._done * (self._total - self._done) if self._done else 0
            self._print(f", about {timedelta(seconds=round(left_s))} left" if left_s else "")
            self._last_line_s = now_s

    def finish(self) -> None:
        if self._printed != self._done:
            self._print("")

    def _print(self, left: str) -> None:
        percent = 100 * self._done // self._total
        click.echo(f"{self._label}: {self._done} of {self._total} ({percent} %{left})", err=True)
        self._printed = self._done
