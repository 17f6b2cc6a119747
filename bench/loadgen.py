"""Runs MLPerf's load generator against a server, one scenario at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.binary_requests import binary_request
from bench.errors import BenchError
from bench.senders import Request, Senders

BATCH = 32
OFFLINE_IN_FLIGHT = 4  # batches
SERVER_IN_FLIGHT = 64  # requests of one image
LATENCY_PERCENTILE = 0.99
_RESULT = "mlperf_log_detail.txt"
_RESULT_MARK = ":::MLLOG "


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What loadgen says about a run.

    Attributes:
        valid: Whether loadgen calls the run VALID, and the server refused no query. loadgen takes every query for
            answered.
        throughput: Samples per second that were answered.
        queries: Number of queries.
        refused: Number of queries that an overloaded server refused.
        p50_ms: Median latency of a query in milliseconds, from its scheduled time.
        p95_ms: 95th percentile of the latency, in milliseconds.
        p99_ms: 99th percentile of the latency, in milliseconds.
    """

    valid: bool
    throughput: float
    queries: int
    refused: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


def run_offline(
    url: str, files: Sequence[bytes], log: Path, *, expected_rate: float, duration_s: float, seed: int = 0
) -> Outcome:
    """Send one query of very many images at once, in batches of ``BATCH``.

    Args:
        url: The server's ``http://host:port``.
        files: The image files to choose from.
        log: Folder for loadgen's files.
        expected_rate: Images per second to expect, which sets the number of images.
        duration_s: Shortest time of a run that is VALID, in seconds.
        seed: Chooses the images.

    Raises:
        BenchError: loadgen is not installed, or a request failed or was refused.
    """
    loadgen = _import()
    settings = _settings(loadgen, loadgen.TestScenario.Offline, duration_s, seed)
    settings.offline_expected_qps = expected_rate
    with Senders(url, OFFLINE_IN_FLIGHT) as senders:

        def issue(samples: Sequence[Any]) -> None:
            for start in range(0, len(samples), BATCH):
                batch = samples[start : start + BATCH]
                encode = partial(binary_request, [files[sample.index] for sample in batch])
                senders.send(Request(encode, partial(_complete, loadgen, [sample.id for sample in batch])))

        _run(loadgen, settings, issue, len(files), log)
    if senders.refused:
        raise BenchError(f"{url} refused {senders.refused} of the batches of MLPerf's offline scenario.")
    return _read_outcome(log, "result_samples_per_second", 0)


def run_server(
    url: str,
    files: Sequence[bytes],
    log: Path,
    *,
    rate: float,
    bound_ms: float,
    duration_s: float,
    least_queries: int,
    seed: int = 0,
) -> Outcome:
    """Send queries of one image at random times, a Poisson process, whether or not earlier ones are answered.

    Args:
        url: The server's ``http://host:port``.
        files: The image files to choose from.
        log: Folder for loadgen's files.
        rate: Queries per second.
        bound_ms: The run is VALID if loadgen is sure that 99 % of all queries take no longer, in milliseconds.
        duration_s: Shortest time of the run, in seconds.
        least_queries: Smallest number of queries. With fewer than 459, loadgen calls no run VALID.
        seed: Chooses the times and the images.

    Raises:
        BenchError: loadgen is not installed, or a request failed.
    """
    loadgen = _import()
    settings = _settings(loadgen, loadgen.TestScenario.Server, duration_s, seed)
    settings.server_target_qps = rate
    settings.server_target_latency_ns = round(bound_ms * 1e6)
    settings.server_target_latency_percentile = LATENCY_PERCENTILE
    settings.min_query_count = least_queries
    requests = [binary_request([file]) for file in files]
    with Senders(url, SERVER_IN_FLIGHT) as senders:

        def issue(samples: Sequence[Any]) -> None:
            for sample in samples:
                encode = partial(requests.__getitem__, sample.index)
                senders.send(Request(encode, partial(_complete, loadgen, [sample.id])))

        _run(loadgen, settings, issue, len(files), log)
    return _read_outcome(log, "result_completed_samples_per_sec", senders.refused)


def _import() -> Any:
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise BenchError(
            "MLPerf's load generator is not installed. Install the bench extra:\n  pip install -e '.[bench]'"
        ) from error
    return mlperf_loadgen


def _settings(loadgen: Any, scenario: Any, duration_s: float, seed: int) -> Any:
    settings = loadgen.TestSettings()
    settings.scenario = scenario
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = round(duration_s * 1000)
    settings.schedule_rng_seed = settings.sample_index_rng_seed = seed
    return settings


def _run(loadgen: Any, settings: Any, issue: Callable[[Sequence[Any]], None], files: int, log: Path) -> None:
    log.mkdir(parents=True, exist_ok=True)
    log_settings = loadgen.LogSettings()
    log_settings.log_output.outdir = str(log)
    log_settings.log_output.copy_summary_to_stdout = False
    log_settings.enable_trace = False
    system = loadgen.ConstructSUT(issue, _nothing)
    library = loadgen.ConstructQSL(files, files, _nothing, _nothing)
    try:
        loadgen.StartTestWithLogSettings(system, library, settings, log_settings)
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)


def _complete(loadgen: Any, identifiers: Sequence[int]) -> None:
    loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(identifier, 0, 0) for identifier in identifiers])


def _nothing(*_: object) -> None:
    pass


def _read_outcome(log: Path, throughput: str, refused: int) -> Outcome:
    results = {}
    for line in (log / _RESULT).read_text().splitlines():
        if line.startswith(_RESULT_MARK):
            entry = json.loads(line.removeprefix(_RESULT_MARK))
            results[entry["key"]] = entry["value"]
    p50, p95, p99 = (results[f"result_{percent}.00_percentile_latency_ns"] / 1e6 for percent in (50, 95, 99))
    return Outcome(
        valid=results["result_validity"] == "VALID" and not refused,
        throughput=results[throughput],
        queries=results["result_query_count"],
        refused=refused,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
    )
