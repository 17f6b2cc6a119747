"""The signals that end ``inference-server``."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Counts SIGTERM and SIGINT on a thread of its own, from its creation until ``ignore``.

    Blocking them would not do: a library's thread that is older, such as PyTorch's after an export, would still get
    them, and end this process. So they have a handler, which says nothing to the main thread: Python writes each
    signal's number into a pipe, whichever thread got it.

    Args:
        on_repeat: Called at every signal but the first: the sender is in a hurry.

    Attributes:
        count: Number of signals so far.
    """

    def __init__(self, on_repeat: Callable[[], None]) -> None:
        self.count = 0
        self._on_repeat = on_repeat
        self._arrived = threading.Event()
        arrivals, noted = os.pipe()
        os.set_blocking(noted, False)
        signal.set_wakeup_fd(noted, warn_on_full_buffer=False)
        for each in STOP_SIGNALS:
            signal.signal(each, _leave_to_the_thread)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)  # a parent process may have blocked them
        threading.Thread(target=self._count, args=(arrivals,), daemon=True).start()

    def wait(self, timeout_s: float) -> None:
        """Wait for the first signal, at most ``timeout_s``; return at once if there was one."""
        self._arrived.wait(timeout_s)

    def ignore(self) -> None:
        """Ignore the signals from now on: the last steps are not to be cut off."""
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)

    def _count(self, arrivals: int) -> None:
        while True:
            os.read(arrivals, 1)
            self.count += 1
            self._arrived.set()
            if self.count > 1:
                self._on_repeat()


def _leave_to_the_thread(number: int, frame: object) -> None:
    pass
