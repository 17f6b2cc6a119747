"""``Classify`` in the threads of an asyncio application, as docs/how-to/asyncio.md shows it."""

import asyncio
import itertools
import threading
import time

import pytest
from stand_in import StandIn, echo

from inference_client import Classify

NEVER_HANGS_S = 20


def test_calls_side_by_side_keep_their_own_answers():
    async def ask(target_server):
        calls = (asyncio.to_thread(target_server, [f"{n}.{m}".encode() for m in range(5)]) for n in range(20))
        return await asyncio.gather(*calls)

    with StandIn() as server, Classify(server.url) as target_server:
        answers = asyncio.run(ask(target_server))
    for number, (results, status_code) in enumerate(answers):
        assert status_code == 200
        assert [entry["Label"] for entry in results] == [f"{number}.{index}" for index in range(5)]


def test_what_a_call_raises_arrives_where_it_is_awaited(tmp_path):
    async def ask():
        with Classify("localhost:1") as target_server:
            await asyncio.to_thread(target_server, tmp_path / "missing")

    with pytest.raises(FileNotFoundError):
        asyncio.run(ask())


def test_cancelled_task_goes_on_at_once_and_its_call_runs_to_its_end():
    release, answered = threading.Event(), []

    def answer(request):
        release.wait(NEVER_HANGS_S)
        answered.append(request)
        return echo(request)

    async def ask(target_server):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.to_thread(target_server, b"x")
        assert not answered
        release.set()

    with StandIn(answer) as server, Classify(server.url) as target_server:
        asyncio.run(ask(target_server))  # waits for its threads
        assert len(answered) == 1


def test_stream_of_a_cancelled_task_is_broken_off():
    broken_off = []

    def answer(request):
        if int(request.images[0]) >= 40:
            if request.images[0] == b"40":
                time.sleep(0.5)  # what the thread waits for while the task is cancelled
            else:
                request.connection.settimeout(NEVER_HANGS_S)
                broken_off.append(request.connection.recv(1) == b"")
        return echo(request)

    async def stream(target_server):
        results = target_server.stream(str(number).encode() for number in itertools.count())
        while some := await asyncio.to_thread(lambda: list(itertools.islice(results, 4))):
            for result in some:
                yield result

    async def ask(target_server):
        taken = []

        async def take():
            async for result in stream(target_server):
                taken.append(result["Label"])

        task = asyncio.create_task(take())
        while len(taken) < 40 or not broken_off_begun():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return taken

    def broken_off_begun():
        return len(server.inferences) > 11

    with StandIn(answer) as server, Classify(server.url) as target_server:
        taken = asyncio.run(ask(target_server))
        assert taken == [str(number) for number in range(40)]
        deadline_s = time.monotonic() + NEVER_HANGS_S / 2
        while len(broken_off) < len(server.inferences) - 11 and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert broken_off
        assert all(broken_off)
        assert len(broken_off) == len(server.inferences) - 11
