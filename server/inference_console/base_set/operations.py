"""Commands of ``base-set`` that the console runs for people: one at a time, each with its progress and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from inference_client.command_line.formatting import printable
from inference_export.errors import BaseDataError
from inference_server.triton.process import start_child

KEPT_OPERATIONS = 100
MOST_WAITING = 20
PROGRESS_INTERVAL_S = 0.5
STOP_TIMEOUT_S = 10.0
NICENESS = 10
_POLL_S = 0.1
_ID_BYTES = 9
_FOUND_EXIT_CODE = 3
_REFUSED_EXIT_CODE = 1
_STOPPED = 256  # no exit code
_ERROR = "Error: "  # how click begins the message of a refusal
_PROGRESS = re.compile(r"(?P<label>.+): (?P<done>\d+) of (?P<total>\d+) \(")
_LAST_WORDS = 2000  # characters
_log = logging.getLogger(__name__)


class State(StrEnum):
    """What has become of an operation."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_end(self) -> bool:
        """Whether the operation will not change any more."""
        return self not in {State.WAITING, State.RUNNING}


class BusyError(Exception):
    """Too many operations wait; the message says what to do."""


class UnstoppableError(Exception):
    """The operation can't be ended; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far a step of an operation is.

    Attributes:
        label: Name of the step.
        done: Number of images done, 0 to ``total``.
        total: Number of images, at least 1.
    """

    label: str
    done: int
    total: int


def _nothing() -> None:
    pass


@dataclass(kw_only=True, eq=False)
class Operation:
    """A command of ``base-set``, from the request to its end.

    Attributes:
        command: The command, such as ``add``.
        arguments: Its options and arguments.
        title: What it is about, in words.
        names: ``class/file name`` of the images that it is about.
        person: Who asked for it; "" where nobody has a name.
        prepare: Called in a thread before the command starts. It may refuse with ``BaseDataError``.
        clean_up: Called in a thread once the command has ended, with what has become of it.
        in_words: Makes the command's messages presentable.
        id: The operation's name in addresses, which nobody can guess.
        asked: When it was asked for.
        state: What has become of it.
        step: How far the present step is; None: nothing is known.
        result: What the command printed, as values; None: nothing.
        message: Why it was refused or failed; "" if it was not.
        ended: When it ended.
    """

    command: str
    arguments: Sequence[str]
    title: str
    names: Sequence[str] = ()
    person: str = ""
    prepare: Callable[[], None] = _nothing
    clean_up: Callable[[State], None] = lambda state: None
    in_words: Callable[[str], str] = str
    id: str = field(default_factory=lambda: secrets.token_urlsafe(_ID_BYTES))
    asked: datetime = field(default_factory=lambda: datetime.now(UTC))
    state: State = State.WAITING
    step: Step | None = None
    result: dict[str, Any] | None = None
    message: str = ""
    ended: datetime | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def changes(self) -> bool:
        """Whether the command may change the base set."""
        return self.command != "check"

    def mentions(self, names: Sequence[str]) -> bool:
        """Tell whether one of some names is among what the operation was about or found."""
        said = json.dumps([*self.names, self.title, self.message, self.result], ensure_ascii=False)
        return any(json.dumps(name, ensure_ascii=False)[1:-1] in said for name in names)

    def end(self, state: State, message: str = "") -> None:
        """Note the end."""
        self.state, self.message, self.step = state, message, None
        self.ended = datetime.now(UTC)
        self.over.set()


class Operations:
    """Runs operations one at a time, in the order in which they were asked for; keeps the last ``KEPT_OPERATIONS``.

    Args:
        on_end: Called with each operation that has ended.
    """

    def __init__(self, on_end: Callable[[Operation], None] = lambda operation: None) -> None:
        self._on_end = on_end
        self._known: dict[str, Operation] = {}
        self._waiting: deque[Operation] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._stopping: set[Operation] = set()

    def start(self, operation: Operation) -> None:
        """Run an operation as soon as those before it have ended.

        Raises:
            BusyError: Too many operations wait.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise BusyError(f"{MOST_WAITING} operations are waiting already. Try again when some have ended.")
        self._known[operation.id] = operation
        ended = [known.id for known in self._known.values() if known.state.is_end]
        for name in ended[: max(0, len(self._known) - KEPT_OPERATIONS)]:
            del self._known[name]
        self._waiting.append(operation)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())

    def find(self, name: str) -> Operation | None:
        """Return the operation of an id; None: there is none, or not any more."""
        return self._known.get(name)

    def latest(self) -> list[Operation]:
        """Return all operations that are kept, the newest first."""
        return list(reversed(self._known.values()))

    def drop(self, name: str) -> None:
        """Keep nothing of an operation that has ended."""
        operation = self._known.get(name)
        if operation is not None and operation.state.is_end:
            del self._known[name]

    def forget_names(self, names: Sequence[str], *, but: Operation) -> None:
        """Keep no operation that has ended and mentions one of some names, but one."""
        for operation in list(self._known.values()):
            if operation is not but and operation.state.is_end and operation.mentions(names):
                del self._known[operation.id]

    async def cancel(self, operation: Operation) -> None:
        """End an operation that waits, or a check that runs; do nothing if it has ended.

        Raises:
            UnstoppableError: The command runs, and may have changed something.
        """
        if operation in self._waiting:
            self._waiting.remove(operation)
            await self._conclude(operation, State.CANCELLED)
        elif operation.state is State.WAITING:  # somebody else is cancelling it
            await operation.over.wait()
        elif operation.state is State.RUNNING:
            if operation.changes:
                raise UnstoppableError(
                    "The change is being made, and can't be stopped half way. When it is done, it can be undone. If it "
                    "hangs, whoever runs this console can restart it."
                )
            self._stopping.add(operation)
            await operation.over.wait()

    async def close(self) -> None:
        """Cancel what waits; wait ``STOP_TIMEOUT_S`` for a change that is being made, then end it."""
        while self._waiting:
            await self._conclude(self._waiting.popleft(), State.CANCELLED)
        if self._worker is None:
            return
        for operation in self._known.values():
            if operation.state is State.RUNNING:
                if operation.changes:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(operation.over.wait(), STOP_TIMEOUT_S)
                self._stopping.add(operation)
        await self._worker

    async def _work(self) -> None:
        while self._waiting:
            operation = self._waiting.popleft()
            operation.state = State.RUNNING
            try:
                state, message = await self._run(operation)
            except BaseDataError as error:
                state, message = State.REFUSED, str(error)
            except OSError as error:
                state, message = State.FAILED, f"base-set can't be started: {error.strerror or error}"
            except ValueError:  # an update may have exchanged the code under a running console
                state, message = State.FAILED, "base-set said nothing that this console understands. Restart it."
            await self._conclude(operation, state, message)

    async def _run(self, operation: Operation) -> tuple[State, str]:
        await asyncio.to_thread(operation.prepare)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            # The kernel ends the command with this process.
            process = start_child(_command_line(operation), output=output, errors=errors.fileno())
            try:
                _lower_priority(process)
                code = await self._wait(operation, process, errors)
            finally:
                await _stop(process)
            if code == _STOPPED:
                return State.CANCELLED, ""
            said = _text(errors)
            if code in {0, _FOUND_EXIT_CODE}:
                operation.result = _in_words(json.loads(_text(output)), operation.in_words)
                return State.DONE, ""
            if code < 0:
                return State.FAILED, f"base-set was killed by signal {-code}. Is there enough memory?"
            if operation.command == "forget":  # its report says what is left
                with contextlib.suppress(ValueError):
                    operation.result = json.loads(_text(output))
            _, _, message = f"\n{said}".rpartition(f"\n{_ERROR}")
            state = State.REFUSED if code == _REFUSED_EXIT_CODE and message else State.FAILED
            words = (message or said[-_LAST_WORDS:]).strip() or f"base-set ended with code {code}."
            return state, operation.in_words(words)

    async def _wait(self, operation: Operation, process: subprocess.Popen[bytes], errors: IO[bytes]) -> int:
        """Wait for the command, and follow its progress."""
        read_bytes = 0
        while (code := process.poll()) is None:
            await asyncio.sleep(_POLL_S)
            if operation in self._stopping:
                return _STOPPED
            said = os.pread(errors.fileno(), 2**16, read_bytes)
            whole_lines = said[: said.rfind(b"\n") + 1]
            read_bytes += len(whole_lines)
            for line in whole_lines.decode("utf-8", "replace").splitlines():
                if step := _PROGRESS.match(line):
                    operation.step = Step(
                        label=printable(step["label"]), done=int(step["done"]), total=int(step["total"])
                    )
        return code

    async def _conclude(self, operation: Operation, state: State, message: str = "") -> None:
        try:
            await asyncio.to_thread(operation.clean_up, state)
        except OSError:  # the operation has ended all the same, and those after it must not wait for ever
            _log.exception("what an operation needed can't be removed")
        self._stopping.discard(operation)
        operation.end(state, message)
        self._on_end(operation)


def _command_line(operation: Operation) -> list[str]:
    return [
        sys.executable, "-m", "inference_server.base_set.command", "--progress_interval", str(PROGRESS_INTERVAL_S),
        operation.command, "--json", *operation.arguments,
    ]  # fmt: skip


def _lower_priority(process: subprocess.Popen[bytes]) -> None:
    """Let a change wait for the server's answers: it computes on the same cores."""
    with contextlib.suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PGRP, process.pid, NICENESS)
    with contextlib.suppress(OSError):  # where the kernel groups processes by session, niceness counts within one only
        Path(f"/proc/{process.pid}/autogroup").write_text(str(NICENESS))


async def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the command and its decoders, if they have not ended by themselves."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may hang in a file system that does not answer
            await asyncio.to_thread(process.wait, STOP_TIMEOUT_S)


def _in_words(value: Any, in_words: Callable[[str], str]) -> Any:
    """Make all texts among values presentable."""
    if isinstance(value, str):
        return in_words(value)
    if isinstance(value, list):
        return [_in_words(item, in_words) for item in value]
    if isinstance(value, dict):
        return {in_words(name): _in_words(item, in_words) for name, item in value.items()}
    return value


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
