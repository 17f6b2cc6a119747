"""Watches over a tritonserver and replaces processes that die or hang.

No release of Triton restarts the process of a Python model. Those before 26.04 call themselves ready even when one has
died.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from inference_export.errors import RepositoryError
from inference_export.repository.config_files import read_configs
from inference_export.repository.configs import ENSEMBLE, MODELS
from inference_export.repository.versions import exported_version
from inference_server.addresses import LOOPBACK, base_url, open_url
from inference_server.errors import ServerError
from inference_server.messages import say
from inference_server.supervision.death_watch import DeathWatch
from inference_server.supervision.diagnosis import Diagnosis, Finding
from inference_server.supervision.failures import Failures, GivenUpError
from inference_server.supervision.held_version import HeldVersion
from inference_server.supervision.model_processes import is_stopped, model_processes
from inference_server.supervision.repair import reload_model
from inference_server.supervision.service_manager import READY, STOPPING, notify
from inference_server.supervision.shared_memory import SharedMemory
from inference_server.supervision.stop_signals import StopSignals
from inference_server.supervision.tritonserver import Tritonserver
from inference_server.triton.access import Access, access_file, claim, read_own_access, write_access
from inference_server.triton.launch import Launch
from inference_server.triton.model_control import ModelControl
from inference_server.triton.process import free_ports

POLL_S = 0.2
LONGEST_START_S = 600.0
EXIT_TIMEOUT_S = 30.0
LAST_ANSWERS_S = 1.0  # for the models' last answers to reach the clients
GIVEN_UP_EXIT_CODE = 3
_SERVER = "tritonserver"
_QUESTION_TIMEOUT_S = 2.0

MakeLaunch = Callable[[Access, str], Launch]


class Watcher:
    """Runs a tritonserver until a signal stops it.

    Args:
        repository: The model repository, which holds an export.
        host: Address that the server listens on.
        port: HTTP port of the server.
        metrics_port: Port of the metrics, on loopback.
        make_launch: Prepares the start, given the owner's access and a prefix for the names of shared memory.
        alongside: Opens a context that lasts from the moment when the server is ready until it is told to stop.
    """

    def __init__(
        self,
        repository: Path,
        *,
        host: str,
        port: int,
        metrics_port: int,
        make_launch: MakeLaunch,
        alongside: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._repository = repository.resolve()
        self._host = host
        self._port = port
        self._metrics_port = metrics_port
        self._make_launch = make_launch
        self._alongside = alongside
        self._key = secrets.token_urlsafe()
        self._held = HeldVersion(self._repository)
        self._failures = Failures()
        self._connection = contextlib.ExitStack()
        self._server: Tritonserver  # from the first start on
        self._started = False

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, then answer the requests in flight.

        Returns:
            0 after such a stop; tritonserver's exit code, or 1, if tritonserver never became ready;
            ``GIVEN_UP_EXIT_CODE`` if something failed again and again.

        Raises:
            ServerError: The port is taken, or the shared memory or the access file can't be written.
        """
        self._signals = StopSignals(on_repeat=self._hurry)
        with claim(self._port) as self._claim:
            try:
                return self._run()
            finally:
                self._signals.ignore()

    def _run(self) -> int:
        self._memory = SharedMemory()
        try:
            if not self._start() and not self._signals.count:
                code = self._server.exit_code()
                say("tritonserver did not become ready" if code is None else f"tritonserver ended with code {code}")
                return code or 1
            if not self._signals.count:
                say(f"ready at http://{self._host}:{self._port}")
                notify(READY)
            with self._alongside() if not self._signals.count else nullcontext():
                while not self._signals.count:
                    self._look()
                    self._signals.wait(POLL_S)
                notify(STOPPING)
            return self._stop()
        except GivenUpError as error:
            say(f"giving up: {error}")
            return GIVEN_UP_EXIT_CODE
        finally:
            self._connection.close()
            if self._started:
                self._server.kill()
            self._memory.close()
            self._remove_access()

    def _hurry(self) -> None:
        if self._started:
            self._server.kill_processes()

    def _start(self) -> bool:
        """Start tritonserver and wait; return False if it ended, or a signal came, before it was ready."""
        version = exported_version(self._repository)
        if version is None:
            raise GivenUpError(f"{self._repository} no longer holds a complete export. Run export-repository")
        (grpc_port,) = free_ports(1)
        self._access = Access(
            pid=os.getpid(),
            grpc_port=grpc_port,
            key=self._key,
            repository=str(self._repository),
            version=version.number,
            configs=read_configs(self._repository),
        )
        self._ready = False
        self._connection.close()
        write_access(self._port, self._access)
        self._hold(version.number)
        self._server = Tritonserver(self._make_launch(self._access, self._memory.prefix), self._memory)
        self._started = True
        deaths = DeathWatch(self._server.pid)
        metrics_url = f"http://{LOOPBACK}:{self._metrics_port}/metrics"
        self._control = self._connection.enter_context(ModelControl(self._access))
        self._diagnosis = Diagnosis(self._server.pid, frozenset(MODELS), metrics_url, self._ready_versions)
        deadline_s = time.monotonic() + LONGEST_START_S
        while not self._signals.count and self._server.exit_code() is None and time.monotonic() < deadline_s:
            self._diagnosis.note_processes()  # also those that die at once
            if deaths.has_died():
                return False
            if self._is_ready():
                self._ready = True
                return True
            self._signals.wait(POLL_S)
        return False

    def _is_ready(self) -> bool:
        try:
            url = f"{base_url(self._host, self._port)}/v2/health/ready"
            with open_url(url, timeout=_QUESTION_TIMEOUT_S):
                return True
        except OSError:
            return False

    def _look(self) -> None:
        """Look once at all processes, and replace those that have failed."""
        failure = self._server.failure()
        if failure:
            self._restart(failure)
            return
        self._hold(self._read_access().version)  # a reload may have changed it
        server = self._server
        for finding in self._diagnosis.look():
            self._replace(finding)
            if self._server is not server:  # a restart has replaced the other models' processes too
                break

    def _replace(self, finding: Finding) -> None:
        """Replace a model's processes; if that fails, restart tritonserver."""
        began_s = time.monotonic()
        model = finding.model
        failure = f"the process of {model} {finding.reason}"
        self._failures.add(model, failure)
        for pid in finding.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            reload_model(self._server, self._read_access(), model, lambda: self._signals.count > 0)
        except (OSError, ServerError, RepositoryError) as error:
            self._restart(f"{failure}, and could not be replaced ({error})")
            return
        self._diagnosis.forget(model)
        self._failures.note_replacement(model)
        say(f"{failure}; replaced in {time.monotonic() - began_s:.1f} s")

    def _restart(self, reason: str) -> None:
        began_s = time.monotonic()
        while not self._signals.count:
            self._failures.add(_SERVER, f"{_SERVER}: {reason}")
            say(f"restarting {_SERVER}: {reason}")
            self._server.kill()
            ready = self._start()
            self._failures.note_replacement(_SERVER)
            if ready:
                say(f"{_SERVER} was restarted in {time.monotonic() - began_s:.1f} s")
                break
            reason = "it did not become ready again"

    def _read_access(self) -> Access:
        """Read the access file, where a reload records the version; write it again if somebody has removed it."""
        access = read_own_access(self._port)
        if access is not None:
            self._access = access
        else:
            with contextlib.suppress(ServerError):  # without the file, reload-repository won't find this server
                self._claim.renew()
                write_access(self._port, self._access)
        return self._access

    def _remove_access(self) -> None:
        with contextlib.suppress(OSError):
            access_file(self._port).unlink(missing_ok=True)

    def _ready_versions(self) -> set[tuple[str, str]] | None:
        with contextlib.suppress(ServerError):
            return self._control.ready_versions()
        return None

    def _hold(self, version: int) -> None:
        change = self._held.change(version)
        if change:
            say(change)

    def _stop(self) -> int:
        if not self._ready:  # nobody waits for an answer
            return 0
        self._remove_access()  # a reload would load again what is unloaded here
        # Unloaded models finish their requests and end. SIGTERM alone would make Triton wait until its deadline for
        # clients that keep a connection open, and for processes that have died.
        with contextlib.suppress(ServerError, OSError), ModelControl(self._access) as control:
            for model in (ENSEMBLE, *MODELS):
                control.unload(model)
        deadline_s = time.monotonic() + EXIT_TIMEOUT_S
        while not self._server.failure() and time.monotonic() < deadline_s and self._signals.count == 1:
            if all(is_stopped(process.pid) for process in model_processes(self._server.pid, frozenset(MODELS))):
                break
            time.sleep(POLL_S)
        self._server.terminate(LAST_ANSWERS_S)
        return 0
