"""The site builds without a warning, its reference is current, and no link leads nowhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.checkout import CHECKOUT
from tests.docs.cli_reference import PAGE, cli_reference

pytestmark = pytest.mark.slow

ROOMS = ("client", "export", "server")
# Not part of the site, whose own links mkdocs checks.
LOOSE_PAGES = [*sorted(CHECKOUT.glob("*.md")), *sorted((CHECKOUT / "deploy").rglob("*.md"))]


def test_site_builds_with_every_link_and_page_in_place(tmp_path: Path) -> None:
    built = _build(CHECKOUT / "mkdocs.yml", tmp_path)
    assert built.returncode == 0, built.stderr
    pages = {str(page.relative_to(CHECKOUT / "docs")) for page in (CHECKOUT / "docs").rglob("*.md")}
    for page in pages:
        built_page = tmp_path / page.removesuffix("index.md").removesuffix(".md") / "index.html"
        assert "<h1" in built_page.read_text(encoding="utf-8")
    assert (
        re.findall(
            r'(?:src|href)="(https?://(?!www\.mkdocs|squidfunk)[^"]*\.(?:js|css|woff2))"',
            (tmp_path / "index.html").read_text(),
        )
        == []
    )


@pytest.mark.parametrize("broken", ["[a](missing.md)", "[a](tutorial.md#no-such-heading)"])
def test_site_with_a_broken_link_does_not_build(tmp_path: Path, broken: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Title\n\n{broken}\n")
    (docs / "tutorial.md").write_text("# Tutorial\n")
    settings = (CHECKOUT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(settings)
    built = _build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert built.returncode != 0
    assert "missing.md" in built.stderr or "no-such-heading" in built.stderr


def test_reference_of_the_commands_is_what_they_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == cli_reference(), "run: .venv/bin/python -m tests.docs.cli_reference"


@pytest.mark.parametrize("page", LOOSE_PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_of_pages_outside_the_site_lead_somewhere(page: Path) -> None:
    for link in _links(page):
        if not link.startswith(("http://", "https://", "#")):
            assert (page.parent / link.partition("#")[0]).exists(), f"{page}: {link}"


def test_map_of_the_code_names_folders_and_files_that_exist_and_no_room_is_missing() -> None:
    text = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w.-]+/[\w./-]*)`", text))
    assert len(named) > len(ROOMS)
    assert not [name for name in named if not (CHECKOUT / name).exists()]
    rooms = {
        f"{init.parent.relative_to(CHECKOUT)}/" for room in ROOMS for init in (CHECKOUT / room).rglob("__init__.py")
    }
    assert rooms - named == set()


def _links(page: Path) -> list[str]:
    tokens = MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8"))
    return [str(child.attrs["href"]) for token in tokens for child in token.children or () if child.type == "link_open"]


def _build(configuration: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(configuration), "-d", str(site)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
