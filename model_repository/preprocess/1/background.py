"""Does what answers cause, but need not wait for, in a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Item = TypeVar("Item")

GATHER_S = 0.1  # what arrives in this time is handled together
ROUNDS_UNTIL_SLEEP = 20
CLOSE_TIMEOUT_S = 1.0


class Background(Generic[Item]):
    """Handles items in their order, all together that have arrived within ``GATHER_S``.

    The thread looks for items by the clock, as long as there are any now and then: if an item woke it, it would take
    Python's lock from the answer that the item belongs to. One thread may add items.

    Args:
        handle: Called with the items, never with none. What it raises costs those items only.
        warn: Called with a message when ``handle`` first raises.
        name: Name of the thread.
    """

    def __init__(self, handle: Callable[[list[Item]], None], warn: Callable[[str], None], *, name: str) -> None:
        self._handle = handle
        self._warn = warn
        self._waiting: deque[Item] = deque()
        self._arrived = threading.Event()
        self._closed = threading.Event()
        self._has_warned = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, item: Item) -> None:
        """Have an item handled soon."""
        self._waiting.append(item)
        if not self._arrived.is_set():
            self._arrived.set()

    def close(self) -> None:
        """Handle the waiting items; give up after ``CLOSE_TIMEOUT_S``."""
        self._closed.set()
        self._arrived.set()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._arrived.wait()
            idle_rounds = 0
            while not is_last and idle_rounds < ROUNDS_UNTIL_SLEEP:
                is_last = self._closed.wait(GATHER_S)
                items = [self._waiting.popleft() for _ in range(len(self._waiting))]
                idle_rounds = 0 if items else idle_rounds + 1
                if items:
                    self._handle_safely(items)
            self._arrived.clear()
            if self._waiting or is_last:
                self._arrived.set()

    def _handle_safely(self, items: list[Item]) -> None:
        try:
            self._handle(items)
        except Exception as error:  # the next items have their turn all the same
            if not self._has_warned:
                self._has_warned = True
                self._warn(f"{self._thread.name}: {type(error).__name__}: {error}")
