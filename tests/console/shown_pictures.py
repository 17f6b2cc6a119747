"""The pictures of the console that the docs show, and what they were made from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tests.checkout import CHECKOUT

FOLDER = CHECKOUT / "docs/how-to/pictures"
RECORD = FOLDER / "made-from.json"
MAX_BYTES = 100_000
_PAGES = CHECKOUT / "server/inference_console/pages"
_ON_EVERY_PAGE = ("static/console.css", "static/console.js", "templates/layout.html.j2")
# The name of a picture's file: the state that it shows, and the page's own templates.
PICTURES = {
    "answer-desktop": ("classify-docs", ("classify", "answer")),
    "base-set-desktop": ("base-set", ("base_set", "thumbnail", "upload", "paging")),
    "check-desktop": ("operation-checked", ("operation", "operation_checked", "thumbnail")),
}


def picture(name: str) -> Path:
    """Return the file of a picture."""
    return FOLDER / f"{name}.png"


def made_from(name: str) -> dict[str, str]:
    """Return the hashes of what a picture shows, and of its file."""
    _, templates = PICTURES[name]
    files = [*_ON_EVERY_PAGE, *(f"templates/{template}.html.j2" for template in templates)]
    return {file: _hash(_PAGES / file) for file in files} | {picture(name).name: _hash(picture(name))}


def record() -> None:
    """Write down what the pictures were made from."""
    RECORD.write_text(json.dumps({name: made_from(name) for name in PICTURES}, indent=2) + "\n")


def recorded() -> dict[str, dict[str, str]]:
    """Read what the pictures were made from."""
    values: dict[str, dict[str, str]] = json.loads(RECORD.read_text())
    return values


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
