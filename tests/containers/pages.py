"""A page's blocks of code, run in their order and a few at a time, also those that need a container engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from tests.docs.snippets import Reader, read_snippets

# What a page says above such a block.
RUN_BY_US = "make test-containers runs it"


class Page:
    """Somebody who follows a page.

    Args:
        page: The Markdown file.
        folder: Where its blocks run.
        environment: Their environment variables.
    """

    def __init__(self, page: Path, folder: Path, environment: Mapping[str, str]) -> None:
        self._page = page
        self._folder = folder
        self._environment = environment
        self._left = [
            dataclasses.replace(snippet, not_run=None) if snippet.not_run == RUN_BY_US else snippet
            for snippet in read_snippets(page)
            if snippet.is_code and snippet.not_run in {None, RUN_BY_US}
        ]

    def run_until(self, text: str) -> float:
        """Run the next blocks, up to the one that contains the text. What stays is stopped then.

        Returns:
            Seconds that the last block took.

        Raises:
            SnippetError: A block failed.
        """
        last = next((number for number, snippet in enumerate(self._left) if text in snippet.code), None)
        assert last is not None, f"{self._page.name}: no block that is left contains {text!r}"
        return self._run(last + 1)

    def run_only(self, text: str) -> None:
        """Run the one block that contains the text, and none before it."""
        (block,) = [snippet for snippet in self._left if text in snippet.code]
        self._left = [block, *(snippet for snippet in self._left if snippet is not block)]
        self._run(1)

    def run_rest(self) -> None:
        """Run all blocks that are left."""
        self._run(len(self._left))

    def _run(self, count: int) -> float:
        blocks, self._left = self._left[:count], self._left[count:]
        reader = Reader(self._folder, environment=self._environment, apart=self._environment)
        seconds = 0.0
        for outcome in reader.run(blocks):
            seconds = outcome.seconds or 0.0
        return seconds
