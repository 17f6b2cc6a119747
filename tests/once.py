"""Things that are made once a run, whichever of its processes needs them first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

# pytest-xdist's name for this process; empty where one process runs all tests.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")


def run_folder(factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all processes of this run share."""
    own = factory.getbasetemp()
    return own.parent if WORKER else own


def make_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Make a folder, unless another process of this run has made it; wait for one that is making it.

    Args:
        folder: The folder. Tests only read what is in it.
        make: Makes the folder with all that it holds.

    Returns:
        The folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = folder.with_name(f"{folder.name}.made")
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what a failed attempt left
            make(folder)
            made.touch()
    return folder
