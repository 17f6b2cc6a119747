"""Every block of code in README and docs runs."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkout import CHECKOUT
from tests.docs.network import can_isolate, own_network
from tests.docs.snippets import EXECUTED, SHOWN, Outcome, Reader, Snippet, SnippetError, read_snippets
from tests.docs.summary import NOT_RUN, RAN

PAGES = [
    CHECKOUT / "README.md",
    CHECKOUT / "CONTRIBUTING.md",
    *sorted((CHECKOUT / "docs").rglob("*.md")),
    *sorted((CHECKOUT / "deploy").rglob("*.md")),
]
PORTS = (8000, 8001, 8002, 8003, 8080, 8090, 8443, 9090)
SERVED = (":8080", "inference-console", ":8002", "reload-repository", "inference-server --check")
DOWNLOADS = ("make perf",)
STARTS_A_SERVER = ("inference-server", "tritonserver", "make serve", "make console")
SERVER = Snippet(
    page=Path("the server that the page takes for granted"), line=0, language="sh", until="ready at",
    code="inference-server -r trained -data base --image_size 64",
)  # fmt: skip


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_code_of_the_page_runs(
    page: Path,
    page_folder: Path,
    environment: dict[str, str],
    apart: dict[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    snippets = read_snippets(page)
    code = [snippet for snippet in snippets if snippet.is_code and snippet.not_run is None]
    starts = any(snippet.until and _mentions(snippet, STARTS_A_SERVER) for snippet in code)
    if not starts and any(_mentions(snippet, SERVED) for snippet in code):
        snippets.insert(0, SERVER)
        starts = True
    with contextlib.ExitStack() as stack:
        prefix: list[str] = []
        if can_isolate() and not any(_mentions(snippet, DOWNLOADS) for snippet in code):
            prefix = stack.enter_context(own_network())
        elif starts:
            _require_free_ports()
        for outcome in Reader(page_folder, environment=environment, apart=apart, prefix=prefix).run(snippets):
            if outcome.snippet is not SERVER:
                record_property(NOT_RUN if outcome.seconds is None else RAN, str(outcome))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_every_block_names_a_language_that_says_whether_it_runs(page: Path) -> None:
    for snippet in read_snippets(page):
        assert snippet.language in (*EXECUTED, *SHOWN), f"{snippet.page}:{snippet.line}"


def test_failing_block_and_one_that_never_gets_ready_are_told(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\ntrue\n```\n\n<!-- not run here: no cluster -->\n```sh\nexit 3\n```\n\n```sh\nfalse\necho after\n```\n"
    )
    reader = Reader(tmp_path, environment={"PATH": "/usr/bin:/bin"}, apart={})
    outcomes: list[Outcome] = []
    with pytest.raises(SnippetError, match=r"page\.md:10: false.*ended with code 1"):
        outcomes.extend(reader.run(read_snippets(page)))
    page.write_text("<!-- runs until: ready -->\n```sh\necho starting\n```\n")
    with pytest.raises(SnippetError, match="has not said 'ready'"):
        list(reader.run(read_snippets(page)))


def test_code_that_would_escape_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n    rm -r indented\n")
    with pytest.raises(SnippetError, match="fence it"):
        read_snippets(page)
    page.write_text("<!-- not run here: no cluster -->\n\ntext in between\n\n```sh\ntrue\n```\n")
    with pytest.raises(SnippetError, match="no block follows"):
        read_snippets(page)


def _mentions(snippet: Snippet, words: tuple[str, ...]) -> bool:
    return any(word in snippet.code for word in words)


def _require_free_ports() -> None:
    for port in PORTS:
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                pytest.fail(f"port {port} is taken, which the docs name: stop what listens there")
