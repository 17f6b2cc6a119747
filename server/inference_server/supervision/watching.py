"""Watching over a tritonserver: what has died or stopped is replaced, without a person.

Triton itself neither restarts the process of a Python model nor stops calling itself ready when one has died.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from inference_export.errors import RepositoryError
from inference_export.repository.configs import CONFIG_FILE, ENSEMBLE, MODELS, without_versions
from inference_export.repository.modes import mode_change, read_mode
from inference_export.repository.repository import exported_version, hold_version
from inference_server.supervision.checking import base_url
from inference_server.supervision.diagnosis import STOPPED_S, Diagnosis, Finding
from inference_server.supervision.log_relay import relay
from inference_server.supervision.model_processes import STOPPED_STATES, dead_children, model_processes, read_state
from inference_server.supervision.shared_memory import SharedMemory
from inference_server.triton.administration import (
    Access,
    ModelControl,
    access_file,
    claim,
    new_key,
    read_access,
    write_access,
)
from inference_server.triton.process import free_ports, start_child
from inference_server.triton.tritonserver import LOOPBACK, Command, ServerError

POLL_S = 0.2
LONGEST_START_S = 600.0
LASTING_S = 10.0  # a replacement that lives as long has worked
EXIT_TIMEOUT_S = 30.0
LAST_ANSWERS_S = 1.0  # for what the models have answered to reach the clients
LAST_WORDS_S = 1.0  # of what was killed
MOST_FAILURES = 5  # in a row, each before the replacement had worked
GIVEN_UP_EXIT_CODE = 3
SERVER = "tritonserver"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_QUESTION_TIMEOUT_S = 2.0

MakeCommand = Callable[[Access, str], Command]


class GivenUpError(Exception):
    """Something fails again and again; the message says what."""


class Watcher:
    """Runs a tritonserver until it is told to stop.

    Args:
        repository: The model repository, which holds an export.
        host, port: Where it listens.
        metrics_port: Where its metrics are, on loopback.
        make_command: Given the access to its model control and a prefix for shared memory, says how to start it.
    """

    def __init__(self, repository: Path, *, host: str, port: int, metrics_port: int, make_command: MakeCommand) -> None:
        self._repository = repository.resolve()
        self._host = host
        self._port = port
        self._metrics_port = metrics_port
        self._make_command = make_command
        self._key = new_key()
        self._signalled = threading.Event()
        self._signals = 0
        self._process: subprocess.Popen[bytes]  # from the first start on
        self._relay: threading.Thread
        self._started = False
        self._held: tuple[int, contextlib.ExitStack, str | None] | None = None
        self._stopped_since_s: float | None = None
        self._failures: Counter[str] = Counter()
        self._repaired_s: dict[str, float] = {}

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT; requests in flight are then answered.

        Raises:
            ServerError: Something that it needs can't be had here.

        Returns:
            0 after such a stop; tritonserver's code if it never became ready; ``GIVEN_UP_EXIT_CODE`` when something
            failed again and again.
        """
        # Blocked for good: signals that come fast would end this process inside of a handler, or on its last steps.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        threading.Thread(target=self._note_signals, daemon=True).start()
        with claim(self._port):
            return self._run()

    def _run(self) -> int:
        self._memory = SharedMemory()
        try:
            if not self._start() and not self._signals:
                code = self._process.poll()
                _say("tritonserver did not become ready" if code is None else f"tritonserver ended with code {code}")
                return code or 1
            if not self._signals:
                _say(f"ready at http://{self._host}:{self._port}")
            while not self._signals:
                self._look()
                self._signalled.wait(POLL_S)
            return self._stop()
        except GivenUpError as error:
            _say(f"giving up: {error}")
            return GIVEN_UP_EXIT_CODE
        finally:
            self._kill()
            self._memory.close()
            with contextlib.suppress(OSError):
                access_file(self._port).unlink(missing_ok=True)

    def _note_signals(self) -> None:
        while True:
            signal.sigwait(STOP_SIGNALS)
            self._signals += 1
            self._signalled.set()
            if self._signals > 1 and self._started:  # somebody is impatient
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def _start(self) -> bool:
        """Start tritonserver, and wait; False if it ended, or was told to, before it was ready."""
        version = exported_version(self._repository)
        if version is None:
            raise GivenUpError(f"{self._repository} holds no complete export any more")
        (grpc_port,) = free_ports(1)
        access = Access(
            pid=os.getpid(),
            grpc_port=grpc_port,
            key=self._key,
            repository=str(self._repository),
            version=version,
            configs=read_configs(self._repository),
        )
        self._access = access
        self._ready = False
        write_access(access_file(self._port), access)
        self._hold(version)
        command = self._make_command(access, self._memory.prefix)
        log, errors = os.pipe()
        self._process = start_child(command.arguments, environment=command.environment, errors=errors)
        self._started = True
        os.close(errors)
        self._relay = threading.Thread(target=relay, args=(log, sys.stderr.fileno()), daemon=True)
        self._relay.start()
        self._diagnosis = Diagnosis(
            self._process.pid, frozenset(MODELS), f"http://{LOOPBACK}:{self._metrics_port}/metrics"
        )
        deadline_s = time.monotonic() + LONGEST_START_S
        death = _DeathNotice(self._process.pid)
        while not self._signals and self._process.poll() is None and time.monotonic() < deadline_s:
            self._diagnosis.look()  # so that it knows the processes, whatever becomes of them
            if death.is_due():
                return False
            if self._is_ready():
                self._ready = True
                return True
            time.sleep(POLL_S)
        return False

    def _is_ready(self) -> bool:
        try:
            url = f"{base_url(self._host, self._port)}/v2/health/ready"
            with urllib.request.urlopen(url, timeout=_QUESTION_TIMEOUT_S):  # noqa: S310
                return True
        except OSError:
            return False

    def _look(self) -> None:
        code = self._process.poll()
        if code is not None:
            self._restart(f"it ended with code {code}")
            return
        if not _is_stopped(self._process.pid):
            self._stopped_since_s = None
        elif self._stopped_since_s is None:
            self._stopped_since_s = time.monotonic()
        elif time.monotonic() - self._stopped_since_s >= STOPPED_S:
            self._restart("it was stopped")
            return
        self._hold(self._read_access().version)  # another one after a reload
        diagnosis = self._diagnosis
        for finding in diagnosis.look():
            self._replace(finding)
            if diagnosis is not self._diagnosis:  # a restart, which has made the others void
                break

    def _replace(self, finding: Finding) -> None:
        """Have Triton start a model's processes anew, while everything else goes on."""
        began_s = time.monotonic()
        model = finding.model
        self._count_failure(model, f"the process of {model} {finding.reason}")
        for pid in finding.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        access = self._read_access()
        try:
            if read_configs(self._repository) != access.configs:
                raise ServerError("another repository has taken the place of the one that is served")
            self._mark_changed(model)
            with ModelControl(access) as control:
                self._load(control, model, finding.pids)
                if not control.is_ready(ENSEMBLE):
                    raise ServerError(f"{ENSEMBLE} is not ready")
        except (OSError, ServerError, RepositoryError) as error:
            self._restart(f"the process of {model} {finding.reason}, and could not be replaced ({error})")
            return
        self._diagnosis.forget(model)
        self._repaired_s[model] = time.monotonic()
        _say(f"the process of {model} {finding.reason}; replaced in {time.monotonic() - began_s:.1f} s")

    def _load(self, control: ModelControl, model: str, replaced: tuple[int, ...]) -> None:
        """Load a model, unless its new process dies meanwhile, for which Triton would wait for ever."""
        death = _DeathNotice(self._process.pid, known=replaced)
        failures: list[ServerError] = []

        def load() -> None:
            try:
                control.load(model)
            except ServerError as error:
                failures.append(error)

        thread = threading.Thread(target=load, daemon=True)
        thread.start()
        while thread.is_alive():
            if self._process.poll() is not None or death.is_due():
                raise ServerError("its new process died")
            thread.join(POLL_S)
        if failures:
            raise failures[0]

    def _mark_changed(self, model: str) -> None:
        # Triton replaces only what it takes for changed: here every version, though one process was to blame.
        for folder in (self._repository / model).iterdir():
            if folder.name.isdecimal():
                for file in folder.iterdir():
                    os.utime(file)

    def _restart(self, reason: str) -> None:
        began_s = time.monotonic()
        while not self._signals:
            self._count_failure(SERVER, f"{SERVER}: {reason}")
            _say(f"restarting {SERVER}: {reason}")
            self._kill()
            ready = self._start()
            self._repaired_s[SERVER] = time.monotonic()
            self._stopped_since_s = None
            if ready:
                _say(f"{SERVER} was restarted in {time.monotonic() - began_s:.1f} s")
                break
            reason = "it did not become ready again"

    def _count_failure(self, what: str, reason: str) -> None:
        lasted_s = time.monotonic() - self._repaired_s.get(what, float("-inf"))
        self._failures[what] = 1 if lasted_s >= LASTING_S else self._failures[what] + 1
        if self._failures[what] > MOST_FAILURES:
            raise GivenUpError(f"{reason}, {self._failures[what]} times in a row, each time soon after it was replaced")

    def _read_access(self) -> Access:
        try:
            self._access = read_access(self._port)
        except ServerError:  # somebody has cleaned up
            with contextlib.suppress(ServerError):  # and left no folder: reload-repository has to do without
                write_access(access_file(self._port), self._access)
        return self._access

    def _hold(self, version: int) -> None:
        """Keep exports from removing the version that is served, and no other."""
        if self._held is not None and self._held[0] == version:
            return
        stack = contextlib.ExitStack()
        with contextlib.suppress(OSError):  # already removed
            stack.enter_context(hold_version(self._repository, version))
        mode = read_mode(self._repository, version)
        if self._held is not None:
            before, held, mode_before = self._held
            modes = mode_change(mode_before, mode)
            _say(f"version {version} is served, in place of {before}{modes and '; '}{modes}")
            held.close()
        self._held = version, stack, mode

    def _stop(self) -> int:
        if not self._ready:  # nobody waits for an answer
            self._kill()
            return 0
        # Told to end, Triton would go on answering whoever keeps a connection open until a deadline cuts them off, and
        # take all of that time where a process has died. Unloaded, models finish what they have, and end.
        with contextlib.suppress(ServerError, OSError), ModelControl(self._access) as control:
            for model in (ENSEMBLE, *MODELS):
                control.unload(model)
        deadline_s = time.monotonic() + EXIT_TIMEOUT_S
        while self._process.poll() is None and time.monotonic() < deadline_s and self._signals == 1:
            working = model_processes(self._process.pid, frozenset(MODELS))
            if not [each for each in working if not _is_stopped(each.pid)]:
                break
            time.sleep(POLL_S)
        self._process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(LAST_ANSWERS_S)
        return 0

    def _kill(self) -> None:
        if self._started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # model processes may outlive tritonserver
            self._process.wait()
            self._relay.join(LAST_WORDS_S)
            self._memory.remove_regions()


class _DeathNotice:
    """Whether a process of a tritonserver has died while it starts; Triton would wait for it for ever.

    Args:
        server: Process id of tritonserver.
        known: Processes that are known to be dead, beside those that are dead now.
    """

    def __init__(self, server: int, known: Iterable[int] = ()) -> None:
        self._server = server
        self._known = {*known, *dead_children(server)}
        self._suspects: set[int] = set()

    def is_due(self) -> bool:
        """Look again: dead twice in a row, since Triton also runs short-lived ones, and waits for those soon."""
        dead = dead_children(self._server) - self._known
        due = bool(dead & self._suspects)
        self._suspects = dead
        return due


def _is_stopped(pid: int) -> bool:
    state = read_state(pid)
    return state is not None and state.state in STOPPED_STATES


def read_configs(repository: Path) -> dict[str, str]:
    """Read the models' configurations, version numbers blanked.

    Raises:
        RepositoryError: One can't be read.
    """
    try:
        return {
            model: without_versions((repository / model / CONFIG_FILE).read_text(encoding="utf-8"))
            for model in (*MODELS, ENSEMBLE)
        }
    except (OSError, UnicodeDecodeError) as error:
        raise RepositoryError(f"{repository} is damaged ({error}). Run the export again.", repository) from error


def _say(message: str) -> None:
    click.echo(f"inference-server: {message}", err=True)
