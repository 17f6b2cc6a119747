"""Run every scenario and print one table."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from inference_server.addresses import LOOPBACK
from tests.chaos import (
    base_sets,
    changing_resources,
    closing,
    compressed,
    crashes,
    descriptors,
    exports,
    forgetting,
    heavy_images,
    images,
    overload,
    reloads,
    requests,
    watching,
)
from tests.chaos.load import expected_answers
from tests.chaos.setting import IMAGE_SIZE, Setting, prepare
from tests.chaos.tally import Tally, format_table
from tests.gateway import CERTIFICATE, running_gateway
from tests.heavy import HEAVIEST
from tests.watched import WatchedServer, watched_server

FOLDER = Path("build/chaos")
KEY = "correct-horse-battery-staple"
MAX_BATCH_SIZE = 32
BROKEN_FILES = ("classifier/{}/model.onnx", "cluster_head/{}/heads.py", "preprocess/{}/settings.json")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, help="Only scenarios whose names contain this; may be given several times.")
def main(only: tuple[str, ...]) -> None:
    """Do bad things to a real server, and print the fate of every image.

    Exit status: 0 if no answer was wrong, lost or hung and every bound was kept; 1 otherwise.
    """
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    click.echo("making networks of random weights, and exporting", err=True)
    setting = prepare(FOLDER.resolve())
    tallies: list[Tally] = []
    failures: list[str] = []
    for name, scenario in SCENARIOS.items():
        if only and not any(part in name for part in only):
            continue
        began_s = time.monotonic()
        try:
            for tally in scenario(setting):
                tallies.append(tally)
                if not tally.kept:
                    failures.append(f"{tally.what}: not kept")
        except AssertionError as error:
            failures.append(f"{name}: {error}")
        click.echo(f"{name}: {time.monotonic() - began_s:.0f} s", err=True)
    click.echo(format_table(tallies))
    for failure in failures:
        click.echo(f"FAILED {failure}")
    sys.exit(bool(failures))


@contextmanager
def _serving(setting: Setting, name: str) -> Iterator[WatchedServer]:
    repository = setting.export(name)
    with watched_server("--model_repository", repository, log=setting.folder / f"{name}.log") as server:
        yield server


def _overload(setting: Setting) -> Iterator[Tally]:
    with _serving(setting, "overload") as server:
        expected = expected_answers(server.url, setting.images)
        yield overload.overload(server, expected, seconds=60, batch=MAX_BATCH_SIZE)


def _crashes(setting: Setting) -> Iterator[Tally]:
    with _serving(setting, "crashes") as server:
        expected = expected_answers(server.url, setting.images)
        for how in (signal.SIGKILL, signal.SIGSTOP):
            yield crashes.crash_models(server, expected, how, rounds=3)
            yield crashes.crash_server(server, expected, how, rounds=2)


def _images(setting: Setting) -> Iterator[Tally]:
    with _serving(setting, "corpus") as server:
        expected = expected_answers(server.url, setting.images)
        yield images.send_corpus(server.url, expected, IMAGE_SIZE, server.model_processes("preprocess"))


def _heavy_images(setting: Setting) -> Iterator[Tally]:
    with _serving(setting, "heavy-images") as server:
        expected = expected_answers(server.url, setting.images)
        alone = heavy_images.send_each(server, expected, HEAVIEST, MAX_BATCH_SIZE)
        yield alone
        without_pause = heavy_images.send_without_pause(server, expected, HEAVIEST, MAX_BATCH_SIZE, seconds=40)
        yield without_pause
        heavy_images.require_promised(alone)
        heavy_images.require_promised(without_pause)


def _requests(setting: Setting) -> Iterator[Tally]:
    with _serving(setting, "requests") as server:
        expected = expected_answers(server.url, setting.images)
        yield requests.send_requests(server.url, expected, MAX_BATCH_SIZE)
        yield requests.hold_slow_connections(server.url, expected, seconds=20)


def _closing(setting: Setting) -> Iterator[Tally]:
    with _serving(setting, "closing") as server:
        expected = expected_answers(server.url, setting.images)
        yield closing.close_during_calls(server.url, expected, times=40)


def _compressed(setting: Setting) -> Iterator[Tally]:
    with _serving(setting, "compressed") as server:
        expected = expected_answers(server.url, setting.images)
        address = f"{LOOPBACK}:{server.port}"
        with running_gateway(setting.folder / "nginx", [address], {KEY: "ward 7"}) as gateway:
            os.environ["SSL_CERT_FILE"] = str(CERTIFICATE)
            yield compressed.send_to_gateway(gateway.url, KEY, server, expected, times=30)
        yield compressed.send_to_server(server, expected)


def _descriptors(setting: Setting) -> Iterator[Tally]:
    with _serving(setting, "descriptors") as server:
        yield descriptors.exhaust(server, expected_answers(server.url, setting.images), seconds=15)


def _exports(setting: Setting) -> Iterator[Tally]:
    repository = setting.export("exports")
    log = setting.folder / "exports.log"
    yield exports.kill_exports(repository, setting.images, setting.arguments("exports"), times=20, log=log)


def _changing_resources(setting: Setting) -> Iterator[Tally]:
    folder = setting.folder / "changing"
    yield changing_resources.change_during_exports(folder, setting.images, times=10)


def _reloads(setting: Setting) -> Iterator[Tally]:
    with _serving(setting, "reloads") as server:
        for what, options in (
            ("another base set", {"base": setting.smaller}),
            ("more classes", {"base": setting.larger}),
            ("another network", {"trained": setting.retrained}),
        ):
            export = setting.arguments("reloads", **options)
            yield reloads.reload_under_load(server, setting.images[::4], what, export)
        for broken in BROKEN_FILES:
            repository = setting.export("reloads")
            yield reloads.refuse_broken_version(server, repository, setting.images, broken)
        export = setting.arguments("reloads", "--image_size", 96)
        yield reloads.refuse_other_shape(server, setting.images, export)


def _base_sets(setting: Setting) -> Iterator[Tally]:
    with _serving(setting, "base-sets") as server:
        repository = setting.folder / "base-sets"
        yield base_sets.change_under_load(server, repository, setting.base, setting.images, times=100)
    data = Path(shutil.copytree(setting.base, setting.folder / "killed-syncs"))
    cache = setting.folder / "killed-syncs-cache"
    yield base_sets.kill_syncs(setting.export("killed-syncs"), data, setting.images[0], cache=cache, times=40)


def _watching(setting: Setting) -> Iterator[Tally]:
    repository = setting.export("watching")
    log, cache = setting.folder / "watching.log", setting.folder / "watching-cache"
    yield watching.kill_while_following(repository, setting.base, setting.images, cache=cache, times=20, log=log)


def _forgetting(setting: Setting) -> Iterator[Tally]:
    with _serving(setting, "forgetting") as server:
        repository = setting.folder / "forgetting"
        yield forgetting.forget_under_load(server, repository, setting.base, setting.images, times=5)
        yield forgetting.kill_forgets(server, repository, setting.base, setting.images, times=5)
    withdrawal = forgetting.prepare(setting.export("forgetting-alone"), setting.base, setting.images[0])
    yield forgetting.kill_without_server(withdrawal, times=35)


SCENARIOS: dict[str, Callable[[Setting], Iterator[Tally]]] = {
    "overload": _overload,
    "crashes": _crashes,
    "images": _images,
    "heavy images": _heavy_images,
    "requests": _requests,
    "close() during calls": _closing,
    "compressed bodies": _compressed,
    "descriptors exhausted": _descriptors,
    "exports": _exports,
    "changing resources": _changing_resources,
    "reloads": _reloads,
    "base sets": _base_sets,
    "watching": _watching,
    "forgetting": _forgetting,
}

if __name__ == "__main__":
    main(prog_name="python -m tests.chaos")
