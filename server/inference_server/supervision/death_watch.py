"""Notices processes that die while tritonserver waits for them."""

from __future__ import annotations

import time

from inference_server.supervision.model_processes import child_processes, is_dead

# A process that was asked to end is dead for up to a second before Triton waits for it (python_backend #450).
UNWAITED_S = 2.0


class DeathWatch:
    """Notices the death of a process that tritonserver starts from now on: Triton may wait for it forever.

    The processes that run already may be asked to end meanwhile.

    Args:
        server: Process id of tritonserver.
    """

    def __init__(self, server: int) -> None:
        self._server = server
        self._older = set(child_processes(server))
        self._dead_since_s: dict[int, float] = {}

    def has_died(self) -> bool:
        """Tell whether a process has been dead for ``UNWAITED_S``, and Triton has not waited for it."""
        now_s = time.monotonic()
        dead = [pid for pid in child_processes(self._server) if pid not in self._older and is_dead(pid)]
        self._dead_since_s = {pid: self._dead_since_s.get(pid, now_s) for pid in dead}
        return any(now_s - since_s >= UNWAITED_S for since_s in self._dead_since_s.values())
