"""The message of the script that creates ``.venv`` if there is no suitable Python."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.checkout import CHECKOUT

TOOLS = ("sh", "dirname", "sed", "cat", "grep", "cut")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout's ``.ci/environment`` with the files that it reads."""
    folder = tmp_path / "checkout"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(CHECKOUT / ".ci" / "environment", folder / ".ci")
    shutil.copy(CHECKOUT / "constraints.txt", folder)
    return folder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A PATH with the programs that the script calls, and no Python."""
    folder = tmp_path / "path"
    folder.mkdir()
    for tool in TOOLS:
        program = shutil.which(tool)
        assert program is not None
        (folder / tool).symlink_to(program)
    return folder


def test_without_a_python_the_message_names_the_found_one_and_the_one_to_install(folder: Path, path: Path) -> None:
    outcome = run(folder, path)
    assert outcome.returncode == 1
    assert "make found no python3" in outcome.stderr
    assert "CPython 3.11 or 3.12" in outcome.stderr
    assert "apt-get install python3-venv" in outcome.stderr
    assert not (folder / ".venv").exists()


def test_named_interpreter_that_does_not_fit_is_refused(folder: Path, path: Path) -> None:
    other = path / "python3.13"
    other.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.13.0\n')  # no other Python is certain to be here
    other.chmod(0o755)
    outcome = run(folder, path, "python3.13")
    assert outcome.returncode == 1
    assert "make found Python 3.13.0 at python3.13" in outcome.stderr
    assert not (folder / ".venv").exists()


def run(folder: Path, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"} | {"PATH": str(path)}
    return subprocess.run(
        [folder / ".ci" / "environment", *arguments], env=environment, capture_output=True, text=True, check=False
    )
