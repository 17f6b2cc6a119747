"""Where the scenarios run: a checkout with trained resources and images, as the pages expect it."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.setting import Setting, prepare
from tests.checkout import CHECKOUT, copy_checkout
from tests.containers.engine import Engine
from tests.containers.materials import Materials
from tests.containers.pages import Page
from tests.deploy.manifests import HOW_TO

FOLDER = CHECKOUT / "build" / "containers"
MATERIALS = FOLDER / "materials"
ENGINE = FOLDER / "engine"
CLONE = FOLDER / "clone"
SYSTEMD_CONTEXT = FOLDER / "systemd"
HOST = "machine.example.com"  # the page's name for the machine


@dataclass(frozen=True, kw_only=True)
class Place:
    """What every scenario gets.

    Attributes:
        engine: The running engine.
        materials: What its images are made of.
        setting: Trained resources, base images and queries.
        clone: The checkout in which the pages' blocks run.
        containers, without_gpu, upgrade: The pages that speak of containers.
        systemd_context: What the container of systemd is built from.
    """

    engine: Engine
    materials: Materials
    setting: Setting
    clone: Path
    containers: Page
    without_gpu: Page
    upgrade: Page
    systemd_context: Path


def prepare_clone() -> None:
    """Copy the checkout, and put in place what the pages name. The networks are of random weights."""
    setting = prepare(FOLDER / "setting")
    shutil.rmtree(CLONE, ignore_errors=True)
    CLONE.mkdir(parents=True)
    copy_checkout(CLONE)
    for name, folder in (("trained", setting.trained), ("base", setting.base)):
        shutil.copytree(folder, CLONE / name)
    for name, image in zip(("a.jpg", "b.jpg"), setting.images, strict=False):
        shutil.copy(image, CLONE / name)


def open_place(engine: Engine, materials: Materials) -> Place:
    """Return the place that ``prepare_clone`` has made."""
    runtime = FOLDER / "runtime"
    shutil.rmtree(runtime, ignore_errors=True)
    runtime.mkdir(mode=0o700)
    environment = {
        **engine.environment,
        "PATH": f"{Path(sys.prefix) / 'bin'}:{engine.environment['PATH']}",
        "XDG_RUNTIME_DIR": str(runtime),
    }
    return Place(
        engine=engine,
        materials=materials,
        setting=prepare(FOLDER / "setting"),
        clone=CLONE,
        containers=Page(HOW_TO / "containers.md", CLONE, environment),
        without_gpu=Page(HOW_TO / "container-without-gpu.md", CLONE, environment),
        upgrade=Page(HOW_TO / "upgrade.md", CLONE, environment),
        systemd_context=SYSTEMD_CONTEXT,
    )


def exit_code(engine: Engine, container: str) -> int:
    """Return the code with which a container ended."""
    state = json.loads(engine.docker("inspect", "--format", "{{json .State}}", container))
    assert state["Status"] == "exited", state
    return int(state["ExitCode"])
