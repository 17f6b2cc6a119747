"""The heaviest images that the server accepts, from one sender, while another client classifies one small picture."""

from __future__ import annotations

import collections
import contextlib
import http.client
import itertools
import json
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from inference_server.addresses import LOOPBACK
from tests.chaos.load import Expected, Load
from tests.chaos.tally import Tally
from tests.heavy import HeavyFile
from tests.heavy.family import family_mb, family_seconds
from tests.watched import WatchedServer

# docs/explanation/security.md states these.
MOST_WAIT_S = 3.0
MOST_MEMORY_MB = 1000.0
TIMEOUT_S = 60.0  # for the sender's requests
RECOVERY_S = 120.0  # the other client must be answered again within this time, or the next file would get the blame
MOST_BODY_BYTES = 32 * 2**20
CONNECTIONS = 8
SAMPLED_S = 0.2
_UNDECODABLE = "no decodable image: "


@dataclass(kw_only=True)
class Attack:
    """An attack and its effect.

    Attributes:
        what: The file, and its number of copies in a request.
        answers: Number of answers by status and reason; status 0 is a timeout or a closed connection.
        began_s: Time of sending.
        ended_s: Time of the last answer.
        seconds: Processor time of ``preprocess``.
        memory_mb: The most memory of ``preprocess``.
    """

    what: str
    answers: collections.Counter[str] = field(default_factory=collections.Counter)
    began_s: float = 0.0
    ended_s: float = 0.0
    seconds: float = 0.0
    memory_mb: float = 0.0


@dataclass(kw_only=True)
class HeavyTally(Tally):
    """The row of the innocent client.

    Attributes:
        memory_mb: The most memory of ``preprocess`` during the attack.
    """

    memory_mb: float = 0.0


def require_promised(tally: HeavyTally) -> None:
    """Require the promised times and memory, on an otherwise idle machine.

    Raises:
        AssertionError: A promise was broken.
    """
    assert not tally.retried, f"{tally.retried} requests of an innocent client were refused"
    assert tally.slowest_s <= MOST_WAIT_S, f"an innocent client waited {tally.slowest_s:.1f} s"
    assert tally.memory_mb <= MOST_MEMORY_MB, f"preprocess and its processes took {tally.memory_mb:.0f} MB"


def send_each(
    server: WatchedServer, expected: Expected, files: Sequence[HeavyFile], batch: int, *, share: float = 1.0
) -> HeavyTally:
    """Send each file alone, and then a full request of its copies.

    Args:
        server: The server.
        expected: Right answers for valid images; the smallest one is classified all the time.
        files: The files.
        batch: Most images in a request.
        share: Share of each file's size to send.
    """
    tally = HeavyTally(what=f"heaviest accepted images, each alone and {batch} in a request", times=2 * len(files))
    attacks = []
    with _innocent(server, expected, tally) as innocent, _Watch(server) as watch:
        for heavy in files:
            data = heavy.build(share)
            for count in (1, _most_in_a_request(data, batch)):
                attack = Attack(what=f"{count} x {heavy.name}, {len(data):,} bytes")
                attacks.append(attack)
                with watch.during(attack):
                    attack.answers += _send(server, _body([data] * count))
                    innocent.wait()
    _conclude(tally, attacks, innocent)
    return tally


def send_without_pause(
    server: WatchedServer,
    expected: Expected,
    files: Sequence[HeavyFile],
    batch: int,
    *,
    seconds: float,
    share: float = 1.0,
) -> HeavyTally:
    """Send all files over and over from several connections, alone and in full requests by turns.

    Args:
        server, expected, files, batch, share: As above.
        seconds: Duration.
    """
    what = f"heaviest accepted images without pause from {CONNECTIONS} connections for {seconds:g} s"
    tally = HeavyTally(what=what, times=1)
    images = [heavy.build(share) for heavy in files]
    bodies = [_body([data] * count) for data in images for count in (1, _most_in_a_request(data, batch))]
    attack = Attack(what="all of them")
    lock = threading.Lock()

    def send(number: int, ends_s: float) -> None:
        for body in itertools.islice(itertools.cycle(bodies), number * len(bodies) // CONNECTIONS, None):
            if time.monotonic() > ends_s:
                return
            answers = _send(server, body)
            with lock:
                attack.answers += answers

    with _innocent(server, expected, tally) as innocent, _Watch(server) as watch, watch.during(attack):
        ends_s = time.monotonic() + seconds
        threads = [threading.Thread(target=send, args=(number, ends_s)) for number in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        innocent.wait()
    _conclude(tally, [attack], innocent)
    return tally


class _Innocent(Load):
    """A client that classifies one small picture again and again."""

    def wait(self) -> None:
        """Wait for one more answer."""
        began_s = time.monotonic()
        while time.monotonic() < began_s + RECOVERY_S:
            if self.seconds and self.seconds[-1][0] > began_s:
                return
            time.sleep(SAMPLED_S)

    def slowest_s(self, began_s: float, ended_s: float) -> float:
        """Return the time of the slowest call that was under way within a period."""
        return max((took for began, took in self.seconds if began < ended_s and began + took > began_s), default=0.0)


def _innocent(server: WatchedServer, expected: Expected, tally: Tally) -> _Innocent:
    image = min(expected, key=lambda file: file.stat().st_size)
    return _Innocent(server.url, [{image: expected[image]}], tally, clients=1, timeout_s=TIMEOUT_S, pause_s=0.05)


class _Watch:
    """Measures the memory of ``preprocess`` and of its child processes."""

    def __init__(self, server: WatchedServer) -> None:
        self._pids = [process.pid for process in server.model_processes("preprocess")]
        self._most_mb = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    @contextlib.contextmanager
    def during(self, attack: Attack) -> Iterator[None]:
        """Fill in the effect of an attack while the context is open."""
        attack.began_s, before_s = time.monotonic(), family_seconds(*self._pids)
        self._most_mb = 0.0
        yield
        attack.ended_s, attack.seconds = time.monotonic(), family_seconds(*self._pids) - before_s
        attack.memory_mb = self._most_mb

    def _sample(self) -> None:
        while not self._done.wait(SAMPLED_S):
            self._most_mb = max(self._most_mb, family_mb(*self._pids))


def _conclude(tally: HeavyTally, attacks: Sequence[Attack], innocent: _Innocent) -> None:
    for attack in attacks:
        answers = ", ".join(f"{count} x {answer}" for answer, count in attack.answers.most_common())
        tally.notes.append(
            f"{attack.what}: {attack.seconds:.1f} s, {attack.memory_mb:.0f} MB, slowest answer of an innocent client "
            f"{innocent.slowest_s(attack.began_s, attack.ended_s):.2f} s; {answers}"
        )
    tally.memory_mb = max(attack.memory_mb for attack in attacks)
    tally.notes.append(f"preprocess and its processes took {tally.memory_mb:.0f} MB at most")
    tally.notes.extend(innocent.failures[:3])


def _most_in_a_request(data: bytes, batch: int) -> int:
    return min(batch, max(1, MOST_BODY_BYTES // len(data)))


def _body(images: Sequence[bytes]) -> tuple[bytes, dict[str, str]]:
    """Make the headers and body of a request in Triton's binary form, the cheapest one for the sender."""
    data = b"".join(struct.pack("<I", len(image)) + image for image in images)
    tensor = {"name": "IMAGE", "shape": [len(images), 1], "datatype": "BYTES"}
    header = json.dumps({
        "inputs": [{**tensor, "parameters": {"binary_data_size": len(data)}}],
        "outputs": [{"name": "LABEL"}, {"name": "ERROR"}],
    }).encode()  # fmt: skip
    return header + data, {"Inference-Header-Content-Length": str(len(header))}


def _send(server: WatchedServer, request: tuple[bytes, dict[str, str]]) -> collections.Counter[str]:
    """Send a request once, and count its answers by status and reason."""
    body, headers = request
    connection = http.client.HTTPConnection(LOOPBACK, server.port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", "/v2/models/ensemble/infer", body, headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException) as error:
        return collections.Counter({f"0 {type(error).__name__}": 1})
    finally:
        connection.close()
    if response.status == 200:
        reasons = next(output["data"] for output in answer["outputs"] if output["name"] == "ERROR")
    else:
        message = str(answer.get("error", ""))
        _, said, reasons = message.partition(_UNDECODABLE)
        reasons = json.loads(reasons) if said else [message.removeprefix("in ensemble 'ensemble', ")]
    return collections.Counter(f"{response.status} {reason or 'decoded'}" for reason in reasons)
