"""A closed-loop load generator: each client sends its next request once the last one is answered."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from bench.errors import BenchError

TIMEOUT_S = 120.0
_OK = 200


@dataclass(frozen=True, kw_only=True)
class Load:
    """The measurements of a load.

    Attributes:
        throughput: Images answered per second.
        p50_ms: Median latency of a request, in milliseconds.
        p95_ms: 95th percentile of the latency, in milliseconds.
        p99_ms: 99th percentile of the latency, in milliseconds.
        images: Number of images answered.
    """

    throughput: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    images: int


JSON_HEADERS = {"Content-Type": "application/json"}


def run_load(
    url: str,
    bodies: Sequence[bytes],
    *,
    clients: int,
    duration_s: float,
    headers: Sequence[Mapping[str, str]] = (JSON_HEADERS,),
) -> Load:
    """Send requests of one image each for a while.

    Args:
        url: URL of the requests.
        bodies: The requests' bodies, used in turn.
        clients: Number of clients.
        duration_s: Time to send new requests, in seconds. Requests in flight at the end are awaited and count.
        headers: The headers of each body, used in turn.

    Raises:
        BenchError: The server answered a request with a status other than 200.
    """
    parts = urlsplit(url)
    turn = itertools.count()
    latencies_s: list[float] = []
    failures: list[BaseException] = []
    began_s = time.monotonic()

    def send() -> None:
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT_S)
        try:
            while time.monotonic() - began_s < duration_s and not failures:
                started_s = time.monotonic()
                number = next(turn)
                body, header = bodies[number % len(bodies)], headers[number % len(headers)]
                connection.request("POST", parts.path or "/", body, dict(header))
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != _OK:
                    raise BenchError(f"{url} answered {answer.status}: {text[:200]!r}")
                latencies_s.append(time.monotonic() - started_s)
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=send) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    elapsed_s = time.monotonic() - began_s
    p50, p95, p99 = np.percentile(np.array(latencies_s) * 1000, [50, 95, 99]).tolist()
    return Load(throughput=len(latencies_s) / elapsed_s, p50_ms=p50, p95_ms=p95, p99_ms=p99, images=len(latencies_s))
