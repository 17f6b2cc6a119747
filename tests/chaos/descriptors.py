"""Idle connections until tritonserver has no descriptor left."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import psutil

from inference_client import Classify
from inference_server.addresses import LOOPBACK
from tests.chaos.load import TIMEOUT_S, Expected, Load, is_right
from tests.chaos.tally import Tally
from tests.watched import WatchedServer

ROOM = 100  # more descriptors that it may open
CONNECTIONS = 300
MOST_LOGGED_BYTES = 100_000


def exhaust(server: WatchedServer, expected: Expected, seconds: float) -> Tally:
    """Hold idle connections. Connected clients still get answers; new ones get answers once the idle connections close.

    Args:
        server: The server. The limit of its tritonserver is lowered for good.
        expected: Right answer for each image.
        seconds: Time for which the connections are held.
    """
    tally = Tally(what=f"no descriptor left, for {seconds:g} s", times=CONNECTIONS)
    triton = server.tritonserver()
    newcomer = threading.Thread(target=_ask_once, args=(server, expected, tally))
    with Load(server.url, [expected], tally, clients=2, pause_s=0.1) as load, contextlib.ExitStack() as idle:
        most = triton.num_fds() + ROOM
        triton.rlimit(psutil.RLIMIT_NOFILE, (most, most))
        logged = server.log.stat().st_size
        for _ in range(CONNECTIONS):
            idle.enter_context(socket.create_connection((LOOPBACK, server.port), timeout=TIMEOUT_S))
        newcomer.start()
        time.sleep(seconds)
        assert triton.num_fds() == most, "there were descriptors left"
        logged = server.log.stat().st_size - logged
        idle.close()
        newcomer.join()
    tally.notes += [f"{logged} bytes logged", *load.failures[:3]]
    assert logged <= MOST_LOGGED_BYTES, f"{logged} bytes logged"
    assert not {"replaced", "restarting"} & set(server.said().split()), server.said()[-2000:]
    return tally


def _ask_once(server: WatchedServer, expected: Expected, tally: Tally) -> None:
    image, answer = next(iter(expected.items()))
    with Classify(server.url, timeout_s=TIMEOUT_S, connect_timeout_s=TIMEOUT_S) as classify:
        results, status = classify(image)
    tally.sent += 1
    if status != 200:
        tally.lost += 1
        tally.notes.append(f"newcomer: {status} {results}")
        return
    right = is_right(results[0], answer)
    tally.right += right
    tally.wrong += not right
