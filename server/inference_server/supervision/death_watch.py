"""Notices processes that die while tritonserver waits for them."""

from __future__ import annotations

from collections.abc import Iterable

from inference_server.supervision.model_processes import dead_children


class DeathWatch:
    """Notices the death of a process that tritonserver has just started: Triton itself would wait forever.

    Args:
        server: Process id of tritonserver.
        known: Processes that died earlier or are about to die.
    """

    def __init__(self, server: int, known: Iterable[int] = ()) -> None:
        self._server = server
        self._known = {*known, *dead_children(server)}
        self._suspects: set[int] = set()

    def has_died(self) -> bool:
        """Tell whether a process that was dead at the last look still is.

        Triton also runs short-lived processes, but reaps them soon after they end.
        """
        dead = dead_children(self._server) - self._known
        died = bool(dead & self._suspects)
        self._suspects = dead
        return died
