"""Ten times the server's capacity."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inference_server.addresses import LOOPBACK
from tests.chaos.load import LATE_S, TOLERANCE, Expected
from tests.chaos.tally import Tally
from tests.watched import WatchedServer

FACTOR = 10
TIMEOUT_S = 60.0
CALM_S = 4.0
CALM_CLIENTS = 4
SMALL_BYTES = 10_000
CLIENTS = 200  # more than the queues hold
# docs/explanation/security.md states these: a request waits at most MAX_QUEUE_S for preprocess, and again for the
# classifier.
MOST_ACCEPTED_P99_S = 45.0
MOST_GROWTH_MB = 2500.0
RECOVERY_S = 5.0
RECOVERED = 0.8  # share of the throughput before, within noise
_OK, _BUSY = 200, 503


class _Requests:
    """Requests of one image and of several, with their right answers."""

    def __init__(self, expected: Expected, batch: int) -> None:
        self._expected = expected
        files = {image: base64.b64encode(image.read_bytes()).decode() for image in expected}
        images = list(expected)
        self.images = {size: [images[number % len(images)] for number in range(size)] for size in (1, batch)}
        self._bodies = {size: _body([files[image] for image in chosen]) for size, chosen in self.images.items()}

    def send(self, connection: http.client.HTTPConnection, size: int) -> tuple[int, int]:
        """Send a request. Return the status and the number of right answers."""
        path = "/v2/models/ensemble/infer"
        connection.request("POST", path, self._bodies[size], {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != _OK:
            return answer.status, 0
        outputs = {output["name"]: output["data"] for output in json.loads(text)["outputs"]}
        answers = zip(self.images[size], outputs["LABEL"], outputs["PROBABILITY"], strict=True)
        return answer.status, sum(
            label == self._expected[image][0] and abs(probability - self._expected[image][1]) <= TOLERANCE
            for image, label, probability in answers
        )


def overload(server: WatchedServer, expected: Expected, *, seconds: float, batch: int, timed: bool = True) -> Tally:
    """Offer ten times the capacity, in requests of single images and of batches, without retries.

    Args:
        server: The server.
        expected: Right answer for each image.
        seconds: Duration.
        batch: Images in a large request.
        timed: Whether to assert the recovery, on an otherwise idle machine.
    """
    tally = Tally(what=f"{FACTOR} times the capacity for {seconds:g} s, requests of 1 and of {batch}", times=1)
    # Small files: the load must not take the processor from the server.
    requests = _Requests({image: answer for image, answer in expected.items() if _is_small(image)}, batch)
    before = _throughput(server, requests, batch, CALM_S)
    started_mb = _memory_mb(server)
    most_mb, accepted = _offer(server, requests, tally, FACTOR * before, seconds, batch)
    ended_s = time.monotonic()
    after = 0.0
    while after < RECOVERED * before and time.monotonic() - ended_s < RECOVERY_S:
        after = max(after, _throughput(server, requests, batch, RECOVERY_S / 2))
    recovered_s = time.monotonic() - ended_s
    p99_s = float(np.percentile(accepted, 99)) if accepted else 0.0
    tally.notes += [
        f"{before:.0f} images/s before, {tally.sent / seconds:.0f} offered, {tally.right / seconds:.0f} answered, "
        f"{after:.0f} within {recovered_s:.1f} s after",
        f"accepted requests' p99 {p99_s:.1f} s; memory {started_mb:.0f} MB before, {most_mb:.0f} MB at most, "
        f"{_memory_mb(server):.0f} MB after",
    ]
    assert p99_s <= MOST_ACCEPTED_P99_S, tally.notes
    assert most_mb - started_mb <= MOST_GROWTH_MB, tally.notes
    assert "replaced" not in server.said(), "a busy process was taken for a stuck one"
    assert "restarted" not in server.said(), server.said()[-2000:]
    assert not timed or after >= RECOVERED * before, tally.notes
    return tally


def _throughput(server: WatchedServer, requests: _Requests, batch: int, seconds: float) -> float:
    done: list[int] = []
    ends_s = time.monotonic() + seconds

    def ask() -> None:
        connection = _connect(server)
        while time.monotonic() < ends_s:
            status, right = requests.send(connection, batch)
            if status == _OK:
                done.append(right)
        connection.close()

    began_s = time.monotonic()
    _run_all([threading.Thread(target=ask) for _ in range(CALM_CLIENTS)])
    return sum(done) / (time.monotonic() - began_s)


def _offer(
    server: WatchedServer, requests: _Requests, tally: Tally, rate: float, seconds: float, batch: int
) -> tuple[float, list[float]]:
    """Send at a fixed rate, without waiting for answers.

    Returns:
        The most memory, MB, and the time of each accepted request, seconds.
    """
    pause_s = CLIENTS * (batch + 1) / 2 / rate
    ends_s = time.monotonic() + seconds
    lock = threading.Lock()
    accepted: list[float] = []

    def offer(number: int) -> None:
        size = batch if number % 2 else 1
        connection = _connect(server)
        next_s = time.monotonic() + pause_s * number / CLIENTS
        while time.monotonic() < ends_s:
            time.sleep(max(0.0, next_s - time.monotonic()))
            next_s = max(next_s + pause_s, time.monotonic() - pause_s)
            began_s = time.monotonic()
            try:
                status, right = requests.send(connection, size)
            except TimeoutError:
                status, right = 0, 0
                connection.close()
            elapsed_s = time.monotonic() - began_s
            with lock:
                _count(tally, size, status, right, elapsed_s)
                if status == _OK:
                    accepted.append(elapsed_s)
        connection.close()

    threads = [threading.Thread(target=offer, args=(number,)) for number in range(CLIENTS)]
    most_mb = 0.0
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        most_mb = max(most_mb, _memory_mb(server))
        time.sleep(0.5)
    return most_mb, accepted


def _count(tally: Tally, size: int, status: int, right: int, elapsed_s: float) -> None:
    tally.sent += size
    if elapsed_s > TIMEOUT_S + LATE_S or status == 0:
        tally.hung += size
    elif status == _BUSY:
        tally.refused += size
    elif status == _OK:
        tally.right += right
        tally.wrong += size - right
    else:
        tally.lost += size
        tally.notes.append(f"answered {status}")


def _run_all(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _connect(server: WatchedServer) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(LOOPBACK, server.port, timeout=TIMEOUT_S)


def _body(texts: Sequence[str]) -> bytes:
    image = {"name": "IMAGE", "shape": [len(texts), 1], "datatype": "BYTES", "data": texts}
    return json.dumps({"inputs": [image], "outputs": [{"name": "LABEL"}, {"name": "PROBABILITY"}]}).encode()


def _is_small(image: Path) -> bool:
    return image.stat().st_size < SMALL_BYTES


def _memory_mb(server: WatchedServer) -> float:
    root = server.tritonserver()
    return sum(process.memory_full_info().pss for process in [root, *root.children()]) / 1e6
