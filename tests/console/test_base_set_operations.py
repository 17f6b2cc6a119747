"""Operations: real commands of ``base-set``, one at a time, with their progress and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psutil
import pytest

from inference_console.base_set import operations as operations_module
from inference_console.base_set.operations import BusyError, Operation, Operations, State, UnstoppableError
from inference_export.errors import BaseDataError
from tests.base_set.conftest import Living
from tests.resources import write_faces

pytestmark = pytest.mark.slow

T = TypeVar("T")


def run(use: Callable[[Operations], Awaitable[T]]) -> T:
    async def with_operations() -> T:
        operations = Operations()
        try:
            return await use(operations)
        finally:
            await operations.close()

    return asyncio.run(with_operations())


def operation(living: Living, command: str, *arguments: object, **options: Any) -> Operation:
    given: list[object] = ["--model_repository", living.repository, *arguments]
    if command not in {"rollback", "set"}:
        given = ["-data", living.base, "--cache", living.cache, *given]
    return Operation(command=command, arguments=[*map(str, given)], title=command, **options)


async def end(operations: Operations, *begun: Operation) -> list[Operation]:
    for each in begun:
        operations.start(each)
    await asyncio.gather(*(each.over.wait() for each in begun))
    return list(begun)


def test_changes_asked_for_at_once_are_made_one_after_the_other(living: Living) -> None:
    write_faces(living.base / "face", [5], "new")
    running = []

    async def ask(operations: Operations) -> list[Operation]:
        begun = [operation(living, "sync"), operation(living, "set", "-thres", 0.5), operation(living, "rollback")]
        for each in begun:
            operations.start(each)
        while not all(each.state.is_end for each in begun):
            running.append(sum(each.state is State.RUNNING for each in begun))
            await asyncio.sleep(0.02)
        return begun

    synced, changed, back = run(ask)
    assert [each.state for each in (synced, changed, back)] == [State.DONE] * 3
    assert (synced.result["added"], synced.result["version"]) == (["face/new005.png"], 2)
    assert (changed.result["version"], back.result["version"]) == (3, 2)
    assert max(running) == 1


def test_refusal_is_told_in_the_commands_own_words(living: Living) -> None:
    (broken,) = run(lambda operations: end(operations, operation(living, "remove", "face/z.png")))
    assert broken.state is State.REFUSED
    assert broken.message.startswith(f"{living.base} holds no base image face/z.png")
    assert broken.result is None


def test_refusal_before_the_command_starts_and_clean_up_after_it(living: Living) -> None:
    cleaned: list[State] = []

    def refuse() -> None:
        raise BaseDataError("the name is taken")

    (refused,) = run(
        lambda operations: end(operations, operation(living, "check", prepare=refuse, clean_up=cleaned.append))
    )
    assert (refused.state, refused.message) == (State.REFUSED, "the name is taken")
    assert cleaned == [State.REFUSED]


def test_wrong_usage_and_a_killed_command_are_failures(living: Living) -> None:
    (wrong,) = run(lambda operations: end(operations, operation(living, "check", "--no_such_option")))
    assert wrong.state is State.FAILED
    assert "no_such_option" in wrong.message

    async def kill(operations: Operations) -> Operation:
        killed = operation(living, "sync")
        operations.start(killed)
        (await _child()).kill()
        await killed.over.wait()
        return killed

    killed = run(kill)
    assert (killed.state, killed.message) == (State.FAILED, "base-set was killed by signal 9. Is there enough memory?")


def test_progress_is_seen_while_the_command_runs(living: Living, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations_module, "PROGRESS_INTERVAL_S", 0)
    monkeypatch.setattr(operations_module, "_POLL_S", 0.01)
    write_faces(living.base / "face", range(10, 100), "new")
    steps = set()

    async def ask(operations: Operations) -> Operation:
        synced = operation(living, "sync")
        operations.start(synced)
        while not synced.state.is_end:
            steps.add(synced.step)
            await asyncio.sleep(0.01)
        return synced

    assert run(ask).state is State.DONE
    seen = {step.label: step.total for step in steps if step is not None}
    assert seen.keys() & {"reading base images", "embedding base images"}
    assert all(0 <= step.done <= step.total for step in steps if step is not None)


def test_check_and_what_waits_can_be_cancelled_but_no_change_that_runs(living: Living) -> None:
    async def ask(operations: Operations) -> list[Operation]:
        check, change, waiting = (operation(living, command) for command in ("check", "sync", "rollback"))
        for each in (check, change, waiting):
            operations.start(each)
        child = await _child()
        await operations.cancel(waiting)
        await operations.cancel(check)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
        await _child()
        with pytest.raises(UnstoppableError, match="can't be stopped half way"):
            await operations.cancel(change)
        await change.over.wait()
        await operations.cancel(change)  # it has ended: nothing to do
        return [check, change, waiting]

    assert [each.state for each in run(ask)] == [State.CANCELLED, State.DONE, State.CANCELLED]


def test_several_may_cancel_the_same_operation_at_once(living: Living) -> None:
    async def ask(operations: Operations) -> Operation:
        first, waiting = operation(living, "check"), operation(living, "check")
        for each in (first, waiting):
            operations.start(each)
        await asyncio.gather(*(operations.cancel(waiting) for _ in range(3)))
        await asyncio.gather(*(operations.cancel(first) for _ in range(3)))
        return waiting

    assert run(ask).state is State.CANCELLED


def test_operation_whose_files_can_not_be_removed_ends_and_holds_up_nobody(living: Living) -> None:
    def refuse() -> None:
        raise BaseDataError("no")

    def fail(_: State) -> None:
        raise PermissionError("not yours")

    stuck = operation(living, "check", prepare=refuse, clean_up=fail)
    after = operation(living, "check", prepare=refuse)
    run(lambda operations: asyncio.wait_for(end(operations, stuck, after), 10))
    assert (stuck.state, after.state) == (State.REFUSED, State.REFUSED)


def test_end_of_the_console_leaves_no_child_and_waits_for_a_change(
    living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations_module, "STOP_TIMEOUT_S", 120.0)  # the machine may be busy
    write_faces(living.base / "face", [5], "new")

    async def close(operations: Operations) -> list[Operation]:
        begun = [operation(living, "sync"), operation(living, "check")]
        for each in begun:
            operations.start(each)
        await _child()
        await operations.close()
        return begun

    change, check = run(close)
    assert (change.state, check.state) == (State.DONE, State.CANCELLED)
    assert not psutil.Process().children()


def test_waiting_and_kept_operations_are_bounded(living: Living, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations_module, "MOST_WAITING", 2)
    monkeypatch.setattr(operations_module, "KEPT_OPERATIONS", 2)

    def refuse() -> None:
        raise BaseDataError("no")

    async def ask(operations: Operations) -> None:
        begun = [operation(living, "check", prepare=refuse) for _ in range(4)]
        operations.start(begun[0])
        operations.start(begun[1])
        with pytest.raises(BusyError, match="2 operations are waiting"):
            operations.start(begun[2])
        await begun[1].over.wait()
        await end(operations, *begun[2:])
        assert operations.latest() == [begun[3], begun[2]]
        assert operations.find(begun[0].id) is None

    run(ask)


def test_what_mentions_a_forgotten_name_is_dropped(living: Living) -> None:
    def refuse(words: str) -> Callable[[], None]:
        def prepare() -> None:
            raise BaseDataError(words)

        return prepare

    async def ask(operations: Operations) -> list[Operation]:
        about = operation(living, "check", names=["face/z.png"], prepare=refuse("no"))
        mentioned = operation(living, "check", prepare=refuse("There is no face/z.png."))
        forgets = operation(living, "check", names=["face/z.png"], prepare=refuse("no"))
        other = operation(living, "check", names=["face/a.png"], prepare=refuse("no"))
        begun = await end(operations, about, mentioned, forgets, other)
        operations.forget_names(["face/z.png"], but=forgets)
        assert operations.latest() == [other, forgets]
        return begun

    run(ask)


async def _child() -> psutil.Process:
    """Return the command that runs, once there is one."""
    while True:
        for child in psutil.Process().children():
            if "inference_server.base_set.command" in child.cmdline():
                return child
        await asyncio.sleep(0.01)
