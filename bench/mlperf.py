"""MLPerf's offline and server scenarios, and perf_analyzer's view of the same server."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import click

from bench.input_data import encode_input
from bench.loadgen import Outcome, run_offline, run_server
from bench.perf_analyzer import WINDOWS, fetch_perf_analyzer, measure
from bench.report import Figure, Report, Row, merge
from bench.setting import Setting
from bench.small_network import export_small, small_images
from bench.stand_in import running_stand_in
from inference_server.triton.process import running_server

BOUNDS_MS = (200, 50)
LEAST_ROUNDS = 5
PROBES = 5  # of a search; each halves the range in which the rate lies
LOWEST_SHARE = 0.1  # of what the server answers offline; at lower rates, a probe would take too long
PROBE_QUERIES = 1000
QUICK_PROBE_QUERIES = 700  # loadgen lets one of them be late
PROBE_S = 5.0
CONCURRENCIES = (1, 8)
OFFLINE, STAND_IN = "MLPerf offline", "stand-in"
_FIRST_GUESS = 100.0  # images per second
_STAND_IN_GUESS = 1000.0


class Rounds:
    """All measurements of one server, in rounds.

    Args:
        url: The server's ``http://host:port``.
        stand_in: URL of a stand-in that answers at once.
        setting: The setting of the benchmarks.
        quick: Whether probes are short.

    Attributes:
        rows: The rows of all rounds, by name and number of clients.
        notes: What explains the rows, by name.
    """

    def __init__(self, url: str, stand_in: str, setting: Setting, *, quick: bool) -> None:
        self._url = url
        self._stand_in = stand_in
        self._files = [file.read_bytes() for file in small_images(setting)]
        self._log = setting.folder / "mlperf"
        self._duration_s = PROBE_S / 2 if quick else PROBE_S
        self._queries = QUICK_PROBE_QUERIES if quick else PROBE_QUERIES
        self._perf_analyzer = fetch_perf_analyzer(setting.folder.parent / "perf_analyzer")
        self._input = setting.folder / "mlperf.json"
        self._input.write_text(encode_input(self._files))
        self._expected_rate = _FIRST_GUESS
        self._seed = 0
        self.rows: dict[tuple[str, int | None], list[Row]] = defaultdict(list)
        self.notes = {
            server_name(bound_ms): [
                f"{PROBES} probes a round, each of at least {self._duration_s:g} s and {self._queries} queries; "
                f"0 if none above {LOWEST_SHARE:.0%} of {OFFLINE} is VALID"
            ]
            for bound_ms in BOUNDS_MS
        }

    def run_round(self, number: int) -> None:
        """Measure everything once."""
        self._seed = number
        log = self._log / f"round-{number}"
        for clients in CONCURRENCIES:
            load = measure(
                self._perf_analyzer,
                "ensemble",
                self._input,
                self._url.removeprefix("http://"),
                concurrency=clients,
                window_s=self._duration_s / WINDOWS,
            )
            self._add(
                Row(
                    name="perf_analyzer",
                    clients=clients,
                    throughput=load.throughput,
                    p50_ms=load.p50_ms,
                    p95_ms=load.p95_ms,
                    p99_ms=load.p99_ms,
                )
            )
        offline = self._offline(self._url, self._expected_rate, log / "offline")
        self._expected_rate = offline.throughput
        self._add(Row(name=OFFLINE, clients=None, throughput=offline.throughput))
        highest = offline.throughput
        for bound_ms in BOUNDS_MS:
            rate, outcome = self._search(highest, bound_ms, log)
            self._add(_server_row(server_name(bound_ms), rate, outcome))
        self._measure_generator(highest, log)

    def _search(self, highest: float, bound_ms: int, log: Path) -> tuple[float, Outcome | None]:
        best: Outcome | None = None

        def probe(rate: float) -> bool:
            nonlocal best
            outcome = self._server(self._url, rate, bound_ms, log / f"server-{bound_ms}-ms-{rate:.0f}-a-second")
            verdict = f"{outcome.refused} refused, {'VALID' if outcome.valid else 'INVALID'}"
            click.echo(f"    {rate:.1f} a second: p99 {outcome.p99_ms:.0f} ms, {verdict}", err=True)
            best = outcome if outcome.valid else best
            return outcome.valid

        return find_highest(probe, LOWEST_SHARE * highest, highest, PROBES), best

    def _measure_generator(self, rate: float, log: Path) -> None:
        """Send as many queries as the server can answer to the stand-in, and then as many as it can answer."""
        outcome = self._server(self._stand_in, rate, BOUNDS_MS[-1], log / "server-stand-in")
        self._add(_server_row(f"{STAND_IN}, MLPerf server", rate, outcome))
        offline = self._offline(self._stand_in, _STAND_IN_GUESS, log / "offline-stand-in")
        self._add(Row(name=f"{STAND_IN}, {OFFLINE}", clients=None, throughput=offline.throughput))

    def _offline(self, url: str, rate: float, log: Path) -> Outcome:
        return run_offline(url, self._files, log, expected_rate=rate, duration_s=self._duration_s, seed=self._seed)

    def _server(self, url: str, rate: float, bound_ms: float, log: Path) -> Outcome:
        return run_server(
            url,
            self._files,
            log,
            rate=rate,
            bound_ms=bound_ms,
            duration_s=self._duration_s,
            least_queries=self._queries,
            seed=self._seed,
        )

    def _add(self, row: Row) -> None:
        self.rows[row.name, row.clients].append(row)
        p99 = "" if row.p99_ms is None else f", p99 {row.p99_ms:.1f} ms"
        click.echo(f"  {row.name}, {row.clients or 'own'} clients: {row.throughput:.2f} images/s{p99}", err=True)


def bench_mlperf(setting: Setting, report: Report, *, quick: bool) -> None:
    """Drive the ensemble at S = 64 with images of 256 x 256."""
    rounds = max(LEAST_ROUNDS, setting.rounds)
    repository = export_small(setting)
    with running_server(repository, log=setting.folder / "mlperf.log") as server, running_stand_in() as stand_in:
        measured = Rounds(server.url, stand_in, setting, quick=quick)
        for number in range(1, rounds + 1):
            click.echo(f"mlperf, round {number} of {rounds}", err=True)
            measured.run_round(number)
    report.rows += [merge(rows) for rows in measured.rows.values()]
    report.figures += [
        Figure(
            name=f"{name}, S = 64" if clients is None else f"{name}, S = 64, clients: {clients}",
            values=[row.throughput for row in rows],
            unit="images/s",
            notes=measured.notes.get(name, ()),
        )
        for (name, clients), rows in measured.rows.items()
    ]


def server_name(bound_ms: int) -> str:
    """Name the row of a server scenario."""
    return f"MLPerf server, p99 within {bound_ms} ms"


def find_highest(passes: Callable[[float], bool], lowest: float, limit: float, probes: int) -> float:
    """Search the highest rate that passes, by bisection.

    Args:
        passes: Tries a rate.
        lowest: A rate that is lower than any of interest; not tried.
        limit: A rate that is too high; not tried.
        probes: Number of rates to try.

    Returns:
        The highest rate that passed, less than ``(limit - lowest) / 2**probes`` below the one sought; 0 if none passed.
    """
    passed, failed = lowest, limit
    for _ in range(probes):
        rate = (passed + failed) / 2
        if passes(rate):
            passed = rate
        else:
            failed = rate
    return 0.0 if passed == lowest else passed


def _server_row(name: str, rate: float, outcome: Outcome | None) -> Row:
    if outcome is None:
        return Row(name=name, clients=None, throughput=rate)
    return Row(
        name=name, clients=None, throughput=rate, p50_ms=outcome.p50_ms, p95_ms=outcome.p95_ms, p99_ms=outcome.p99_ms
    )
