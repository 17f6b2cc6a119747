"""Finds the models of a tritonserver that lack a process, or have one that is stuck. A busy process is not stuck.

A process that ends was often asked to: its version was unloaded. So what counts is not that it ended, but whether it is
missing: a version that Triton calls ready needs a process for each instance. Whether a dead process is still there says
little. Triton 24.10 never waits for one that died; from 25.12 on, the next question whether its model is ready does. A
process that was asked to end may stay for a second (python_backend #450).
"""

from __future__ import annotations

import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from inference_server.addresses import open_url
from inference_server.supervision.death_watch import UNWAITED_S
from inference_server.supervision.model_processes import (
    DEAD_STATES,
    STOPPED_STATES,
    ModelProcess,
    family_ticks,
    is_dead,
    model_processes,
    read_state,
)

STOPPED_S = 1.0  # in state T; a debugger's stop may be shorter
STUCK_S = 3.0  # with work waiting, but no processor time and no executions
_LISTED_S = 0.5  # between listings of processes, which look at all of tritonserver's hundreds of threads
_QUIET_S = 1.0  # without processor time, before Triton is asked whether work waits
_QUESTION_TIMEOUT_S = 1.0
_EXECUTIONS, _PENDING = "nv_inference_exec_count", "nv_inference_pending_request_count"
_METRIC = re.compile(
    rf'^({_EXECUTIONS}|{_PENDING})\{{(?:[^}}]*,)?model="([^"]+)",version="([^"]+)"[^}}]*\}} (\S+)$', re.MULTILINE
)
Version = tuple[str, str]  # a model, and the name of its version's folder
_Counts = Counter[Version]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A model that no longer works.

    Attributes:
        model: The model's name.
        pids: The processes to blame, which still exist; none if a process is missing.
        reason: What happened to them, in words.
    """

    model: str
    pids: tuple[int, ...]
    reason: str


@dataclass
class _Watched:
    process: ModelProcess
    cpu_ticks: int
    family_ticks: int  # read only if work waits, since reading takes long
    running_s: float  # when it was last seen running, not stopped
    quiet_since_s: float  # when it last used the processor
    idle_since_s: float  # when it last used the processor, finished work or had none

    @property
    def version(self) -> Version:
        return self.process.model, self.process.version


class Diagnosis:
    """Looks at the processes of one tritonserver, again and again.

    Args:
        server: Process id of tritonserver.
        models: Names of the models to look at.
        metrics_url: URL of Triton's metrics.
        ready_versions: Asks Triton for the versions that are loaded and not being unloaded; None if it does not answer.
    """

    def __init__(
        self,
        server: int,
        models: frozenset[str],
        metrics_url: str,
        ready_versions: Callable[[], Collection[Version] | None],
    ) -> None:
        self._server = server
        self._models = models
        self._metrics_url = metrics_url
        self._ready_versions = ready_versions
        self._watched: dict[int, _Watched] = {}  # the living
        self._unwaited: dict[int, tuple[str, float]] = {}  # model and time of each death that Triton has not noticed
        self._instances: defaultdict[str, set[str]] = defaultdict(set)  # of each model that has processes at all
        self._missing: set[tuple[Version, str]] = set()  # instances without a process at the last look
        self._executions: _Counts = Counter()
        self._listed_s = self._asked_s = 0.0

    def note_processes(self) -> None:
        """Note the processes that exist, while Triton starts."""
        now_s = time.monotonic()
        if now_s - self._listed_s >= _LISTED_S:
            self._list(now_s)

    def forget(self, model: str) -> None:
        """Forget the processes of a model, which have been replaced."""
        self._watched = {pid: each for pid, each in self._watched.items() if each.process.model != model}
        self._unwaited = {pid: death for pid, death in self._unwaited.items() if death[0] != model}
        self._missing = {missing for missing in self._missing if missing[0][0] != model}

    def look(self) -> list[Finding]:
        """Look once.

        Returns:
            At most one finding for each model.
        """
        now_s = time.monotonic()
        findings = self._find_dead(now_s)
        for pid, watched in self._watched.items():
            state = read_state(pid)
            if state is None or state.state in DEAD_STATES:  # since the lines above; the next look will see it
                continue
            if state.cpu_ticks != watched.cpu_ticks:
                watched.cpu_ticks = state.cpu_ticks
                watched.quiet_since_s = watched.idle_since_s = now_s
            if state.state not in STOPPED_STATES:
                watched.running_s = now_s
            elif now_s - watched.running_s >= STOPPED_S:
                model = watched.process.model
                findings[model] = Finding(model=model, pids=(pid,), reason="was stopped")
        return list((self._find_stuck(now_s) | findings).values())

    def _find_dead(self, now_s: float) -> dict[str, Finding]:
        """Find models whose ready versions have lacked a process at two looks, or that Triton waits for in vain."""
        has_ended = self._take_out_ended(now_s)
        models = {model for model, died_s in self._unwaited.values() if now_s - died_s >= UNWAITED_S}
        if has_ended or self._missing or now_s - self._listed_s >= _LISTED_S:
            missing = self._find_missing(now_s)
            models |= {model for (model, _), _ in missing & self._missing}
            self._missing = missing
        return {model: Finding(model=model, pids=(), reason="died") for model in models}

    def _take_out_ended(self, now_s: float) -> bool:
        """Take the processes that have ended out of the living; tell whether there were any."""
        self._unwaited = {pid: death for pid, death in self._unwaited.items() if is_dead(pid)}
        has_ended = False
        for pid, watched in list(self._watched.items()):
            state = read_state(pid)
            if state is None or state.state in DEAD_STATES:
                has_ended = True
                del self._watched[pid]
                if state is not None:
                    self._unwaited[pid] = watched.process.model, now_s
        return has_ended

    def _find_missing(self, now_s: float) -> set[tuple[Version, str]]:
        """Find the instances of ready versions that no living process runs."""
        ready = self._ready_versions()
        if ready is None:
            return set()
        self._list(now_s)  # after the question, so that a version that has just become ready has its processes
        running = {(watched.version, watched.process.instance) for watched in self._watched.values()}
        needed = {(version, instance) for version in ready for instance in self._instances.get(version[0], ())}
        return needed - running

    def _list(self, now_s: float) -> None:
        self._listed_s = now_s
        for process in model_processes(self._server, self._models):
            self._instances[process.model].add(process.instance)
            if process.pid not in self._watched:
                self._watched[process.pid] = _Watched(process, -1, -1, now_s, now_s, now_s)

    def _find_stuck(self, now_s: float) -> dict[str, Finding]:
        is_quiet = any(now_s - watched.quiet_since_s >= _QUIET_S for watched in self._watched.values())
        if not is_quiet or now_s - self._asked_s < _QUIET_S:
            return {}
        self._asked_s = now_s
        metrics = self._read_metrics()
        if metrics is None:
            return {}
        pending, executions = metrics
        for pid, watched in self._watched.items():
            if pending[watched.version]:
                ticks = family_ticks(pid)
                if ticks != watched.family_ticks:
                    watched.family_ticks = ticks
                    watched.quiet_since_s = watched.idle_since_s = now_s
        worked_s: dict[Version, float] = {}  # one process of a version may wait for another
        for watched in self._watched.values():
            worked_s[watched.version] = max(watched.quiet_since_s, worked_s.get(watched.version, 0.0))
        findings = {}
        for pid, watched in self._watched.items():
            version = watched.version
            if not pending[version] or executions[version] != self._executions[version]:
                watched.idle_since_s = now_s
            elif now_s - max(watched.idle_since_s, worked_s[version]) >= STUCK_S:
                reason = "was stuck, with work waiting"
                findings[version[0]] = Finding(model=version[0], pids=(pid,), reason=reason)
        self._executions = executions
        return findings

    def _read_metrics(self) -> tuple[_Counts, _Counts] | None:
        try:
            with open_url(self._metrics_url, timeout=_QUESTION_TIMEOUT_S) as answer:
                text = answer.read().decode("utf-8", "replace")
        except OSError:
            return None
        counts: dict[str, _Counts] = {_PENDING: Counter(), _EXECUTIONS: Counter()}
        for name, model, version, value in _METRIC.findall(text):
            counts[name][model, version] += int(float(value))
        return counts[_PENDING], counts[_EXECUTIONS]
