"""What docs/how-to/upgrade.md says of two versions of the software and one repository, tried with both."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from inference_client import Classify
from inference_client.version import __version__
from tests import tiny_network
from tests.base_set.conftest import Living
from tests.checkout import copy_checkout
from tests.watched import WatchedServer, watched_server

pytestmark = pytest.mark.slow

NEXT = f"{__version__}+next"


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """The next version: another number, and another model in the template."""
    folder = tmp_path / "newer"
    copy_checkout(folder)
    version = folder / "client" / "inference_client" / "version.py"
    version.write_text(version.read_text(encoding="utf-8").replace(f'"{__version__}"', f'"{NEXT}"'))
    for model in (folder / "model_repository").glob("*/1/model.py"):
        model.write_text(model.read_text(encoding="utf-8") + "\n# The next version.\n")
    return folder


@contextmanager
def _installed(software: Path | None) -> Iterator[None]:
    """Have the programs that start now be of another version; None: of this one."""
    with pytest.MonkeyPatch.context() as patch:
        if software is not None:
            rooms = (software / "client", software / "export", software / "server", software)
            patch.setenv("PYTHONPATH", os.pathsep.join(map(str, rooms)))
        yield


def _run(module: str, *arguments: object, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def _version(server: WatchedServer, image: Path) -> int:
    with Classify(server.url, details=True) as classify:
        (entry,), _ = classify(image)
    return int(entry["Version"])


def test_repository_is_served_by_both_versions_and_changed_by_the_one_that_exported_it(
    living: Living, newer: Path
) -> None:
    image = living.base / "face" / "x001.png"
    export = ("-r", living.folder / "trained", "--network", tiny_network.NETWORK, "-data", living.base,
              "--model_repository", living.repository, "--cache", living.cache)  # fmt: skip
    change = ("set", "-thres", 0.5, "--model_repository", living.repository)
    with _installed(newer):
        assert NEXT in _run("inference_server", "--version")
        with watched_server("--model_repository", living.repository, log=living.folder / "new.log") as server:
            assert _version(server, image) == 1
            refusal = _run("inference_server.base_set.command", *change, code=1)
            assert f"was exported by classify-triton {__version__}" in refusal
            assert "Export it again" in refusal
            assert _version(server, image) == 1
            _run("inference_export", *export)
            reload = ("inference_server.reload.command", "--port", server.port)
            assert "version 2 is served, in place of 1" in _run(*reload)
            assert _version(server, image) == 2
            assert "version 1 is served, in place of 2" in _run(*reload, "--rollback")
            assert _version(server, image) == 1
    with (
        _installed(None),
        watched_server("--model_repository", living.repository, log=living.folder / "old.log") as server,
    ):
        assert _version(server, image) == 1
        assert "version 2 is served, in place of 1" in _run("inference_server.reload.command", "--port", server.port)
        assert _version(server, image) == 2
        refusal = _run("inference_server.base_set.command", *change, code=1)
        assert f"was exported by classify-triton {NEXT}" in refusal
    with _installed(newer):
        assert "version 3, in place of 2" in _run("inference_server.base_set.command", *change)
    assert [folder.name for folder in sorted(living.head(3).parent.glob("[0-9]*"))] == ["2", "3"]


def test_start_with_resources_exports_again_with_the_new_version_and_names_it(living: Living, newer: Path) -> None:
    arguments = ("-r", living.folder / "trained", "--network", tiny_network.NETWORK, "-data", living.base,
                 "--model_repository", living.repository, "--cache", living.cache)  # fmt: skip
    log = living.folder / "log"
    with _installed(newer), watched_server(*arguments, log=log):
        pass
    said = log.read_text(encoding="utf-8")
    assert re.search(r"^exporting .*: changed since .* was exported: software", said, re.MULTILINE)
    assert re.search(r"^starting tritonserver on .*, version 2,", said, re.MULTILINE)
