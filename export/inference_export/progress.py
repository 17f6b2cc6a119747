"""How a long step reports its progress."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

# Called with a label and a total. The context's value is a function to call with the number of steps done since the
# last call.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@contextlib.contextmanager
def show_nothing(_label: str, _total: int) -> Iterator[Callable[[int], None]]:
    """Show no progress."""
    yield lambda _: None
