"""Measures changes of large base sets: until a running server answers with one, and the memory of the command."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np
import psutil

from bench.errors import BenchError
from bench.report import Figure, Report
from bench.setting import Setting
from inference_client import Classify
from inference_export.base_set.embedding_cache import open_cache
from inference_export.base_set.scoring import normalize
from inference_export.changing import open_version_images
from inference_export.regular_files import FileReader
from inference_export.repository.contents import read_contents
from inference_server.triton.process import free_ports

BASE_IMAGES = 10_000
MOST_BASE_IMAGES = 1_000_000
CLASSES = ("even", "odd")
QUERIES = 10_000
LOAD_S = 10.0  # to measure what the server can do
START_TIMEOUT_S = 120.0
POLL_S = 0.01
_CHUNK = 10_000


def bench_base_sets(setting: Setting, report: Report, *, quick: bool) -> None:
    """Add one image to a large base set while the server answers half as many images as it can."""
    for count in (BASE_IMAGES,) if quick else (BASE_IMAGES, MOST_BASE_IMAGES):
        repository, base = _prepare(setting, count)
        with _serving(repository, setting.folder / f"{repository.name}.log") as url, _half_load(url, setting):
            measured = [_add_one(setting, repository, base, url, number) for number in range(max(3, setting.rounds))]
        seconds, megabytes = zip(*measured, strict=True)
        name = f"one image added to {count:,}, server at half load"
        is_largest = count == MOST_BASE_IMAGES
        report.figures += [
            Figure(
                name=f"{name}: until the first answer with it",
                values=list(seconds),
                unit="s",
                at_most=20 if is_largest else 3,
            ),
            Figure(
                name=f"{name}: memory of the command beyond mapped files",
                values=list(megabytes),
                unit="MB",
                at_most=500 if is_largest else None,
            ),
        ]
        if count == BASE_IMAGES:
            report.figures.append(_compare_queries(setting, repository, base))
        shutil.rmtree(base)
        shutil.rmtree(repository)


def _prepare(setting: Setting, count: int) -> tuple[Path, Path]:
    """Export a repository, and give it a base set of random embeddings, each of which has a file of its own.

    The files are no images: the cache knows their embeddings, so nobody decodes them.
    """
    repository = setting.export(f"base-{count}")
    base = setting.folder / f"base-{count}"
    shutil.rmtree(base, ignore_errors=True)
    contents = read_contents(repository)
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (base / name).mkdir(parents=True)
    click.echo(f"making a base set of {count:,} files", err=True)
    reader = FileReader()
    with (
        open_version_images(contents, reader) as images,
        open_cache(_cache(setting), images.decoding, contents.export.provenance.graph) as cache,
    ):
        for start in range(0, count, _CHUNK):
            files = [base / CLASSES[number % 2] / f"{number:07}" for number in range(start, start + _CHUNK)]
            for file in files:
                file.write_text(file.name)
                reader.read(file, len(file.name))
            embeddings = rng.standard_normal((_CHUNK, contents.shape.embedding_size), dtype=np.float32)
            cache.put([images.content_key(file) for file in files], normalize(embeddings))
    time.sleep(3)  # a file that has just changed is read again the next time
    _base_set("sync", "--yes", repository=repository, base=base, setting=setting)
    return repository, base


def _add_one(setting: Setting, repository: Path, base: Path, url: str, number: int) -> tuple[float, float]:
    """Add an image.

    Returns:
        Seconds from the command's start to the first answer with the new version, and the command's memory beyond
        mapped files in MB.
    """
    image = setting.folder / "added" / f"{number}.jpg"
    image.parent.mkdir(exist_ok=True)
    # The same picture each time, with other bytes: a comment behind the end of the picture.
    image.write_bytes(setting.queries[0].read_bytes() + f"{time.time_ns()}".encode())
    began_s = time.monotonic()
    command = _command("add", CLASSES[0], str(image), repository=repository, base=base, setting=setting)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    most_bytes = 0
    while process.poll() is None:
        most_bytes = max(most_bytes, _private_bytes(process.pid))
        time.sleep(POLL_S)
    output, _ = process.communicate()
    if process.returncode != 0:
        raise BenchError(f"base-set add failed with exit status {process.returncode}.")
    version = json.loads(output)["version"]
    with Classify(url, details=True) as classify:
        results, status = classify(setting.queries[0])
    elapsed_s = time.monotonic() - began_s
    if status != 200 or not isinstance(results, list) or results[0]["Version"] != version:  # noqa: PLR2004
        raise BenchError(f"the server answered {status} and {results} instead of version {version}.")
    return elapsed_s, most_bytes / 1e6


def _private_bytes(pid: int) -> int:
    """Return the memory of a process and its children that belongs to no file."""
    total = 0
    with contextlib.suppress(psutil.Error, OSError):  # one of them has ended meanwhile
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss_Anon:"):
                    total += int(line.split()[1]) * 1024
    return total


def _compare_queries(setting: Setting, repository: Path, base: Path) -> Figure:
    """Ask both base sets about many queries, whose embeddings are cached."""
    queries = setting.folder / "many-queries"
    shutil.rmtree(queries, ignore_errors=True)
    shutil.copytree(base, queries)
    values = []
    for name in ("odd/0000001", "odd/0000003", "odd/0000005"):
        (base / name).unlink()
        began_s = time.monotonic()
        _base_set(
            "check", "--queries", str(queries), repository=repository, base=base, setting=setting, exit_codes=(0, 3)
        )
        values.append(time.monotonic() - began_s)
    shutil.rmtree(queries)
    return Figure(
        name=f"base-set check, {QUERIES:,} embedded queries, {BASE_IMAGES:,} base images", values=values, unit="s",
        at_most=10,
    )  # fmt: skip


@contextmanager
def _serving(repository: Path, log: Path) -> Iterator[str]:
    """Run inference-server, which base-set finds by its access file."""
    port, metrics_port = free_ports(2)
    command = [str(Path(sys.executable).with_name("inference-server")), "--model_repository", str(repository),
               "--port", str(port), "--metrics_port", str(metrics_port)]  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while f"ready at http://127.0.0.1:{port}" not in log.read_text():
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise BenchError(f"inference-server did not start; see {log}.")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@contextmanager
def _half_load(url: str, setting: Setting) -> Iterator[None]:
    """Send half as many images as the server can answer, at regular times, until the context ends."""
    with Classify(url) as classify:
        classify(setting.queries[0])
        began_s = time.monotonic()
        images = list(itertools.islice(itertools.cycle(setting.queries), 32))
        _, status = classify(images)
        interval_s = 2 * (time.monotonic() - began_s) / len(images)
        click.echo(f"half load: an image each {interval_s * 1000:.0f} ms", err=True)
        ends = threading.Event()
        failures: list[object] = []

        def send(image: Path) -> None:
            results, status = classify(image)
            if status != 200:  # noqa: PLR2004
                failures.append(results)

        def send_regularly() -> None:
            threads = []
            for image in itertools.cycle(setting.queries):
                if ends.wait(interval_s):
                    break
                threads.append(threading.Thread(target=send, args=(image,)))
                threads[-1].start()
            for thread in threads:
                thread.join()

        sender = threading.Thread(target=send_regularly)
        sender.start()
        try:
            yield
        finally:
            ends.set()
            sender.join()
        if failures or status != 200:  # noqa: PLR2004
            raise BenchError(f"{len(failures)} requests failed, such as with {failures[:1]}.")


def _base_set(
    name: str, *arguments: str, repository: Path, base: Path, setting: Setting, exit_codes: tuple[int, ...] = (0,)
) -> None:
    command = _command(name, *arguments, repository=repository, base=base, setting=setting)
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if done.returncode not in exit_codes:
        raise BenchError(f"base-set {name} failed with exit status {done.returncode}.")


def _command(name: str, *arguments: str, repository: Path, base: Path, setting: Setting) -> list[str]:
    return [
        str(Path(sys.executable).with_name("base-set")), name, *arguments, "--model_repository", str(repository),
        "-data", str(base), "--cache", str(_cache(setting)), "--json",
    ]  # fmt: skip


def _cache(setting: Setting) -> Path:
    return setting.folder / "cache"
