"""How long steps tell how far they are, without knowing who shows it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

# Called with a label and a total; its context is a function to call with the number of steps done since the last call.
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
