"""The signals that end ``inference-server``."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Counts SIGTERM and SIGINT on a thread of its own, from its creation on.

    The signals stay blocked for good: handlers of signals in quick succession could end this process in the middle of a
    handler, or in its last steps.

    Args:
        on_repeat: Called at every signal but the first: the sender is in a hurry.

    Attributes:
        count: Number of signals so far.
    """

    def __init__(self, on_repeat: Callable[[], None]) -> None:
        self.count = 0
        self._on_repeat = on_repeat
        self._arrived = threading.Event()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        threading.Thread(target=self._count, daemon=True).start()

    def wait(self, timeout_s: float) -> None:
        """Wait for the first signal, at most ``timeout_s``; return at once if there was one."""
        self._arrived.wait(timeout_s)

    def _count(self) -> None:
        while True:
            signal.sigwait(STOP_SIGNALS)
            self.count += 1
            self._arrived.set()
            if self.count > 1:
                self._on_repeat()
