"""Consoles and a browser that tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_server.triton.process import RunningServer
from tests.base_set.conftest import living as living  # noqa: PLC0414  (a fixture)
from tests.console.browser import Browser, open_browser
from tests.console.running import RunningConsole, running_console
from tests.console.states import Site, running_site


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


@pytest.fixture(scope="session")
def site(
    workspace: Path,
    console: RunningConsole,
    clustering_server: RunningServer,
    base_data: dict[str, list[Path]],
    query_images: list[Path],
) -> Iterator[Site]:
    """Consoles of each kind in front of the clustering server, whose base set nobody changes."""
    folder = next(iter(base_data.values()))[0].parents[1]
    repository = clustering_server.repository
    with running_site(
        workspace / "site", clustering_server.url, folder, repository, query_images[:3], read_only=console
    ) as running:
        yield running


@pytest.fixture(scope="session")
def session_browser() -> Iterator[Browser]:
    with open_browser() as running:
        yield running


@pytest.fixture
def browser(session_browser: Browser) -> Browser:
    """A browser in a desktop's window, which has logged nothing and is logged in nowhere."""
    session_browser.reset()
    return session_browser
