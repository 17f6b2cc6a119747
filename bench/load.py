"""A closed-loop load generator: C clients, each of which sends its next request when it has its answer."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from .errors import BenchError

TIMEOUT_S = 120.0
_OK = 200


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a load measured.

    Args:
        throughput: Images answered in a second.
        p50_ms, p95_ms, p99_ms: Percentiles of a request's latency, milliseconds.
        images: Images answered.
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
        url: Where to.
        bodies: What the requests carry, in turn.
        headers: Of each body, in turn.
        clients: Number of clients C.
        duration_s: How long new requests are sent; those in flight are waited for, and count.

    Raises:
        BenchError: A request was answered with another status than 200.
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
