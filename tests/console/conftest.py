"""Consoles that tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_server.triton.process import RunningServer
from tests.base_set.conftest import living as living  # noqa: PLC0414  (a fixture)
from tests.console.running import RunningConsole, running_console


@pytest.fixture(scope="session")
def console(
    workspace: Path, clustering_server: RunningServer, base_data: dict[str, list[Path]]
) -> Iterator[RunningConsole]:
    """A console in front of the clustering server, whose base set nobody changes."""
    folder = next(iter(base_data.values()))[0].parents[1]
    arguments = ("-ip", clustering_server.url, "-data", str(folder))
    repository = ("--model_repository", str(clustering_server.repository), "--read_only")
    with running_console(workspace / "console.log", *arguments, *repository) as running:
        yield running
