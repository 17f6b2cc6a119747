"""The code blocks of a Markdown page: read, and run from top to bottom as a reader would.

A comment above a block says what is special about it::

    <!-- not run here: no container engine -->        the block is shown, and not run
    <!-- runs until: ready at -->                     it stays, and the page goes on when it has printed these words
    <!-- in a new environment -->                     it runs in a virtual environment of its own
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

from inference_server.triton.process import start_child

EXECUTED = ("sh", "python")
SHOWN = ("text", "json", "yaml", "nginx", "ini", "promql", "http", "html")
BLOCK_TIMEOUT_S = 240.0
START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 60.0
_DIRECTIVE = re.compile(r"^<!--\s*(not run here|runs until|in a new environment)(?::\s*(.+?))?\s*-->$")


class SnippetError(AssertionError):
    """A block of a page did not do what the page says."""


@dataclass(frozen=True, kw_only=True)
class Snippet:
    """A fenced block.

    Args:
        page: The Markdown file.
        line: Line of the fence, from 1.
        language: What the fence names; empty for none.
        code: Its text.
        not_run: Why it is not run; None if it is.
        until: Words that a block which stays prints when it is ready; None if it ends by itself.
        apart: Whether it runs in a virtual environment of its own.
    """

    page: Path
    line: int
    language: str
    code: str
    not_run: str | None = None
    until: str | None = None
    apart: bool = False

    @property
    def is_code(self) -> bool:
        """Whether it is code to run, if nothing says otherwise."""
        return self.language in EXECUTED

    def __str__(self) -> str:
        first = next((line for line in self.code.splitlines() if line.strip() and not line.startswith("import")), "")
        return f"{os.path.relpath(self.page)}:{self.line}: {first[:80]}"


def read_snippets(page: Path) -> list[Snippet]:
    """Read the fenced blocks of a page, each with the comment right above it.

    Raises:
        SnippetError: Code stands in an indented block, or a comment has no block below it.
    """
    snippets = []
    pending: dict[str, str | None] = {}
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        start = token.map[0] + 1 if token.map else 0
        if token.type == "fence":
            snippets.append(
                Snippet(
                    page=page,
                    line=start,
                    language=token.info.strip(),
                    code=token.content,
                    not_run=pending.get("not run here"),
                    until=pending.get("runs until"),
                    apart="in a new environment" in pending,
                )
            )
            pending = {}
        elif match := _DIRECTIVE.match(token.content.strip()) if token.type == "html_block" else None:
            pending[match[1]] = match[2]
        elif pending:
            raise SnippetError(f"{page}:{start}: no block follows the comment {pending}")
        elif token.type == "code_block":
            raise SnippetError(f"{page}:{start}: an indented block: fence it, and name its language")
    return snippets


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a block: how long it ran, or why it did not."""

    snippet: Snippet
    seconds: float | None

    def __str__(self) -> str:
        what = f"not run here: {self.snippet.not_run}" if self.seconds is None else f"{self.seconds:.1f} s"
        return f"{self.snippet}  [{what}]"


class Reader:
    """Somebody who types a page's blocks into a shell, in one folder.

    Args:
        folder: Where the blocks run.
        environment: Their environment variables.
        apart: The environment variables of blocks that run in a virtual environment of their own, which they install
            packages into: such a block runs in the machine's network.
        prefix: What stands before the command of every other block.
    """

    def __init__(
        self, folder: Path, *, environment: Mapping[str, str], apart: Mapping[str, str], prefix: Sequence[str] = ()
    ) -> None:
        self._folder = folder
        self._environment = environment
        self._apart = apart
        self._prefix = prefix
        self._staying: list[subprocess.Popen[bytes]] = []

    def run(self, snippets: list[Snippet]) -> Iterator[Outcome]:
        """Run the code of a page in its order; what stays is stopped at the end.

        Raises:
            SnippetError: A block failed, or was not ready in time; with what it printed.
        """
        try:
            for snippet in snippets:
                if snippet.is_code:
                    start = time.monotonic()
                    if snippet.not_run is None:
                        self._run(snippet)
                    yield Outcome(snippet=snippet, seconds=None if snippet.not_run else time.monotonic() - start)
        finally:
            for process in reversed(self._staying):
                _stop(process)

    def _run(self, snippet: Snippet) -> None:
        log = self._folder / f".snippet-{snippet.line}.log"
        command = (
            ["bash", "-euo", "pipefail", "-c", snippet.code]
            if snippet.language == "sh"
            else [sys.executable, "-c", snippet.code]
        )
        with log.open("wb") as output:
            process = start_child(
                command if snippet.apart else [*self._prefix, *command],
                folder=self._folder,
                environment=self._apart if snippet.apart else self._environment,
                output=output,
            )
        if snippet.until is None:
            try:
                code = process.wait(BLOCK_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                _stop(process)
                raise SnippetError(f"{snippet}: still running after {BLOCK_TIMEOUT_S:g} s\n{_end(log)}") from None
            if code:
                raise SnippetError(f"{snippet}: ended with code {code}\n{_end(log)}")
        else:
            self._staying.append(process)
            deadline = time.monotonic() + START_TIMEOUT_S
            while snippet.until not in log.read_text(encoding="utf-8", errors="replace"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SnippetError(f"{snippet}: has not said {snippet.until!r}\n{_end(log)}")
                time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
