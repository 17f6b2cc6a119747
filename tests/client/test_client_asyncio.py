"""``AsyncClassify``: many calls at once, cancellation, streams, closing. Its status codes: test_client_status.py."""

import asyncio
import itertools
import threading

import pytest
from stand_in import StandIn, config, echo, raw_server, unused_port
from test_client_calls import NEVER_HANGS_S, labels, run_script
from test_client_hostile_server import PUMP

from inference_client import AsyncClassify, Classify, StreamError

LIMIT = 4
MOST_AHEAD = 17 * LIMIT  # 16 requests, and the one whose results the caller is taking


def numbers(count):
    return [str(number).encode() for number in range(count)]


def texts(images):
    return [image.decode() for image in images]


async def eventually(condition):
    async with asyncio.timeout(NEVER_HANGS_S):
        while not condition():
            await asyncio.sleep(0.01)


class Hanging:
    """Answers that wait for images from ``first`` on, until the client breaks off the connection."""

    def __init__(self, first):
        self.first = first
        self.begun = []
        self.broken_off = []

    def __call__(self, request):
        if int(request.images[0]) >= self.first:
            self.begun.append(request)
            request.connection.settimeout(NEVER_HANGS_S)
            if request.connection.recv(1) == b"":
                self.broken_off.append(request)
        return echo(request)

    def all_broken_off(self):
        return self.begun and len(self.broken_off) == len(self.begun)


def test_calls_side_by_side_keep_their_own_answers():
    async def ask():
        async with AsyncClassify(server.url) as target_server:
            return await asyncio.gather(
                *(target_server([f"{call}.{image}".encode() for image in range(6)]) for call in range(100))
            )

    with StandIn() as server:
        answers = asyncio.run(ask())
    for call, (results, status_code) in enumerate(answers):
        assert status_code == 200
        assert labels(results) == [f"{call}.{image}" for image in range(6)]
    assert len([request for request in server.requests if request.path.endswith("/config")]) == 1


def test_slow_answers_do_not_hold_up_other_calls():
    release = threading.Event()

    def answer(request):
        if request.images == [b"slow"]:
            release.wait(NEVER_HANGS_S)
        return echo(request)

    async def ask():
        async with AsyncClassify(server.url) as target_server:
            slow = [asyncio.create_task(target_server(b"slow")) for _ in range(20)]
            await eventually(lambda: len(server.inferences) == 20)
            assert (await target_server(b"fast"))[1] == 200
            assert not any(task.done() for task in slow)
            release.set()
            return [status_code for _, status_code in await asyncio.gather(*slow)]

    with StandIn(answer) as server:
        assert asyncio.run(ask()) == [200] * 20


def test_long_list_keeps_its_order_and_a_connection_for_each_request_in_flight():
    async def ask():
        async with AsyncClassify(server.url) as target_server:
            return await target_server(iter(numbers(200)), details=True)

    with StandIn() as server:
        results, status_code = asyncio.run(ask())
    assert (status_code, labels(results)) == (200, texts(numbers(200)))
    assert {entry["Version"] for entry in results} == {3}
    assert len({id(request.connection) for request in server.requests}) <= 8


def test_empty_list_asks_the_server_nothing():
    async def ask():
        async with AsyncClassify(f"localhost:{unused_port()}") as target_server:
            return await target_server([]), [entry async for entry in target_server.stream([])]

    assert asyncio.run(ask()) == (([], 200), [])


def test_exception_of_a_call_arrives_where_the_call_is_awaited(tmp_path):
    async def ask(images, progress=None):
        async with AsyncClassify(server.url) as target_server:
            await target_server(images, progress=progress)

    with StandIn() as server:
        with pytest.raises(FileNotFoundError):
            asyncio.run(ask([b"x", tmp_path / "missing"]))
        assert server.requests == []
        with pytest.raises(TypeError, match="pass a path"):
            asyncio.run(ask(7))
        with pytest.raises(ZeroDivisionError):
            asyncio.run(ask(b"x", progress=lambda count: count / 0))


def test_progress_hears_of_every_image_in_the_event_loop():
    heard = []

    async def ask():
        async with AsyncClassify(server.url) as target_server:
            await target_server(numbers(18), progress=lambda count: heard.append((count, asyncio.get_running_loop())))

    with StandIn() as server:
        asyncio.run(ask())
    assert sum(count for count, _ in heard) == 18


@pytest.mark.parametrize("leave", ["cancel", "timeout"])
def test_abandoned_call_breaks_off_its_requests(leave):
    async def ask():
        async with AsyncClassify(server.url) as target_server:
            call = asyncio.create_task(target_server(numbers(200)))
            await eventually(lambda: len(hanging.begun) > 1)
            if leave == "cancel":
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            else:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.01):
                        await call
            await eventually(hanging.all_broken_off)
            return await target_server(b"1")

    hanging = Hanging(first=8)
    with StandIn(hanging) as server:
        assert asyncio.run(ask())[1] == 200


def test_deadline_holds_and_the_event_loop_goes_on_while_an_answer_comes_without_a_pause():
    async def ask():
        async with AsyncClassify(url, timeout_s=2) as target_server:
            call = asyncio.create_task(target_server(b"x"))
            turns = 0
            while not call.done():
                await asyncio.sleep(0.01)
                turns += 1
            return (await call)[1], turns

    with raw_server(PUMP) as url:
        status_code, turns = asyncio.run(ask())
    assert status_code == 504
    assert turns > 3


def test_stream_gives_results_in_order_and_takes_images_little_ahead():
    taken = 0

    def images():
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield str(number).encode()

    async def ask():
        given, ahead = [], []
        async with AsyncClassify(server.url) as target_server:
            async for entry in target_server.stream(images()):
                ahead.append(taken - len(given))
                given.append(entry["Label"])
                if len(given) == 400:
                    break
            return given, max(ahead)

    with StandIn(configuration=lambda request: config(LIMIT)) as server:
        given, most_ahead = asyncio.run(ask())
    assert given == texts(numbers(400))
    assert LIMIT < most_ahead <= MOST_AHEAD


def test_stream_gives_each_bad_image_its_error(tmp_path):
    async def ask():
        async with AsyncClassify(server.url) as target_server:
            return [entry async for entry in target_server.stream([b"a", tmp_path / "missing", b"bad", b"b"])]

    with StandIn() as server:
        results = asyncio.run(ask())
    assert labels(results) == ["a", None, None, "b"]
    assert "can't be read" in results[1]["Error"]
    assert results[2]["Error"] == "bad is no image"


def test_stream_of_a_server_that_is_not_there_ends_with_its_status():
    async def ask():
        async with AsyncClassify(f"localhost:{unused_port()}") as target_server:
            return [entry async for entry in target_server.stream(numbers(9))]

    with pytest.raises(StreamError, match="refused the connection") as raised:
        asyncio.run(ask())
    assert raised.value.status_code == 503


def test_exception_of_the_iterable_comes_after_the_results_of_the_images_before():
    def images():
        yield from numbers(10)
        raise ZeroDivisionError

    async def ask():
        given = []
        try:
            async with AsyncClassify(server.url) as target_server:
                async for entry in target_server.stream(images()):
                    given.append(entry["Label"])
        except ZeroDivisionError:
            return given

    with StandIn() as server:
        assert asyncio.run(ask()) == texts(numbers(10))


@pytest.mark.parametrize("leave", ["aclose", "cancel"])
def test_abandoned_stream_breaks_off_its_requests(leave):
    async def take(stream, given):
        async for entry in stream:
            given.append(entry["Label"])

    async def ask():
        given = []
        async with AsyncClassify(server.url) as target_server:
            stream = target_server.stream(str(number).encode() for number in itertools.count())
            if leave == "aclose":
                for _ in range(8):
                    given.append((await anext(stream))["Label"])
                await eventually(lambda: hanging.begun)
                await stream.aclose()
            else:
                task = asyncio.create_task(take(stream, given))
                await eventually(lambda: len(given) == 8 and hanging.begun)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await eventually(hanging.all_broken_off)
            assert (await target_server(numbers(5)))[1] == 200
        return given

    hanging = Hanging(first=8)
    with StandIn(hanging) as server:
        assert asyncio.run(ask()) == texts(numbers(8))


def test_closing_ends_calls_and_streams():
    async def take(stream):
        return [entry async for entry in stream]

    async def ask():
        target_server = AsyncClassify(server.url)
        waiting = [
            asyncio.create_task(target_server(b"9")),
            asyncio.create_task(target_server(numbers(200))),
            asyncio.create_task(take(target_server.stream(numbers(200)))),
        ]
        await eventually(lambda: len(hanging.begun) >= 3)
        await target_server.close()
        await target_server.close()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        await eventually(hanging.all_broken_off)
        with pytest.raises(RuntimeError, match="AsyncClassify is closed: make a new one"):
            await target_server(b"x")
        with pytest.raises(RuntimeError, match="AsyncClassify is closed"):
            target_server.stream([])
        return outcomes

    hanging = Hanging(first=8)
    with StandIn(hanging) as server:
        outcomes = asyncio.run(ask())
    assert [type(outcome) for outcome in outcomes] == [RuntimeError] * 3
    assert all("closed" in str(outcome) for outcome in outcomes)


def test_second_event_loop_is_told_to_make_its_own():
    async def ask(target_server):
        return (await target_server(b"x"))[1]

    with StandIn() as server:
        target_server = AsyncClassify(server.url)

        async def first():
            assert await ask(target_server) == 200
            with pytest.raises(RuntimeError, match="make one for each event loop"):
                await asyncio.to_thread(asyncio.run, ask(target_server))
            await target_server.close()

        asyncio.run(first())


def test_program_leaves_nothing_open_and_prints_nothing():
    script = """
        import asyncio, sys
        from inference_client import AsyncClassify
        async def main():
            async with AsyncClassify(sys.argv[1]) as target_server:
                print((await target_server([b"x"] * 40))[1])
                async for entry in target_server.stream([b"x"] * 40):
                    break
        asyncio.run(main())
    """
    with StandIn() as server:
        ended = run_script(script, server.url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "200\n", "")


def test_blocking_client_in_threads_of_an_event_loop_keeps_working():
    async def ask(target_server):
        calls = (asyncio.to_thread(target_server, [f"{n}.{m}".encode() for m in range(5)]) for n in range(20))
        return await asyncio.gather(*calls)

    with StandIn() as server, Classify(server.url) as target_server:
        answers = asyncio.run(ask(target_server))
    for number, (results, status_code) in enumerate(answers):
        assert status_code == 200
        assert labels(results) == [f"{number}.{index}" for index in range(5)]
