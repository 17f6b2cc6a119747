"""Finds the model processes of a tritonserver that are dead or stuck. A busy process is not stuck."""

from __future__ import annotations

import re
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass

from inference_server.supervision.model_processes import (
    DEAD_STATES,
    STOPPED_STATES,
    family_ticks,
    model_processes,
    read_state,
)

STOPPED_S = 1.0  # in state T; a debugger's stop may be shorter
STUCK_S = 3.0  # with work waiting, but no processor time and no executions
MISSING_S = 1.0  # without any process; a load may replace one process by another
_LISTED_S = 0.5  # between listings of processes, which look at all of tritonserver's hundreds of threads
_QUIET_S = 1.0  # without processor time, before Triton is asked whether work waits
_QUESTION_TIMEOUT_S = 1.0
_EXECUTIONS, _PENDING = "nv_inference_exec_count", "nv_inference_pending_request_count"
_METRIC = re.compile(
    rf'^({_EXECUTIONS}|{_PENDING})\{{(?:[^}}]*,)?model="([^"]+)",version="([^"]+)"[^}}]*\}} (\S+)$', re.MULTILINE
)
_Counts = Counter[tuple[str, str]]  # by model and version


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A model that no longer works.

    Attributes:
        model: The model's name.
        pids: The processes to blame, which may still exist.
        reason: What happened to them, in words.
    """

    model: str
    pids: tuple[int, ...]
    reason: str


@dataclass
class _Watched:
    model: str
    version: str
    cpu_ticks: int
    family_ticks: int  # read only if work waits, since reading takes long
    running_s: float  # when it was last seen running, not stopped
    quiet_since_s: float  # when it last used the processor
    idle_since_s: float  # when it last used the processor, finished work or had none
    was_dead: bool = False  # at the last look


class Diagnosis:
    """Looks at the processes of one tritonserver, again and again.

    Args:
        server: Process id of tritonserver.
        models: Names of the models to look at.
        metrics_url: URL of Triton's metrics.
    """

    def __init__(self, server: int, models: frozenset[str], metrics_url: str) -> None:
        self._server = server
        self._models = models
        self._metrics_url = metrics_url
        self._watched: dict[int, _Watched] = {}
        self._seen_s: dict[str, float] = {}  # when each model last had a process
        self._executions: _Counts = Counter()
        self._listed_s = self._asked_s = 0.0

    def forget(self, model: str) -> None:
        """Forget the processes of a model, which have been replaced."""
        self._watched = {pid: process for pid, process in self._watched.items() if process.model != model}
        self._seen_s.pop(model, None)

    def look(self) -> list[Finding]:
        """Look once.

        Returns:
            At most one finding for each model.
        """
        now_s = time.monotonic()
        findings: dict[str, Finding] = {}
        self._note_new(now_s)
        for pid, process in list(self._watched.items()):
            state = read_state(pid)
            if state is None:  # unloaded, and waited for
                del self._watched[pid]
                continue
            if state.state in DEAD_STATES:
                if not process.was_dead:  # perhaps unloaded, and about to be waited for
                    process.was_dead = True
                    continue
                findings[process.model] = Finding(model=process.model, pids=(pid,), reason="died")
                continue
            if state.cpu_ticks != process.cpu_ticks:
                process.cpu_ticks = state.cpu_ticks
                process.quiet_since_s = process.idle_since_s = now_s
            if state.state not in STOPPED_STATES:
                process.running_s = now_s
            elif now_s - process.running_s >= STOPPED_S:
                findings[process.model] = Finding(model=process.model, pids=(pid,), reason="was stopped")
        for model, seen_s in self._seen_s.items():
            if now_s - seen_s >= MISSING_S:
                findings.setdefault(model, Finding(model=model, pids=(), reason="vanished"))
        return list((self._find_stuck(now_s) | findings).values())

    def _note_new(self, now_s: float) -> None:
        if now_s - self._listed_s < _LISTED_S:
            return
        self._listed_s = now_s
        for process in model_processes(self._server, self._models):
            self._seen_s[process.model] = now_s
            if process.pid not in self._watched:
                self._watched[process.pid] = _Watched(process.model, process.version, -1, -1, now_s, now_s, now_s)

    def _find_stuck(self, now_s: float) -> dict[str, Finding]:
        is_quiet = any(now_s - process.quiet_since_s >= _QUIET_S for process in self._watched.values())
        if not is_quiet or now_s - self._asked_s < _QUIET_S:
            return {}
        self._asked_s = now_s
        metrics = self._read_metrics()
        if metrics is None:
            return {}
        pending, executions = metrics
        for pid, process in self._watched.items():
            if pending[process.model, process.version]:
                ticks = family_ticks(pid)
                if ticks != process.family_ticks:
                    process.family_ticks = ticks
                    process.quiet_since_s = process.idle_since_s = now_s
        worked_s: dict[tuple[str, str], float] = {}  # one process of a version may wait for another
        for process in self._watched.values():
            version = process.model, process.version
            worked_s[version] = max(process.quiet_since_s, worked_s.get(version, 0.0))
        findings = {}
        for pid, process in self._watched.items():
            version = process.model, process.version
            if not pending[version] or executions[version] != self._executions[version]:
                process.idle_since_s = now_s
            elif now_s - max(process.idle_since_s, worked_s[version]) >= STUCK_S:
                reason = "was stuck, with work waiting"
                findings[process.model] = Finding(model=process.model, pids=(pid,), reason=reason)
        self._executions = executions
        return findings

    def _read_metrics(self) -> tuple[_Counts, _Counts] | None:
        try:
            with urllib.request.urlopen(self._metrics_url, timeout=_QUESTION_TIMEOUT_S) as answer:  # noqa: S310
                text = answer.read().decode("utf-8", "replace")
        except OSError:
            return None
        counts: dict[str, _Counts] = {_PENDING: Counter(), _EXECUTIONS: Counter()}
        for name, model, version, value in _METRIC.findall(text):
            counts[name][model, version] += int(float(value))
        return counts[_PENDING], counts[_EXECUTIONS]
