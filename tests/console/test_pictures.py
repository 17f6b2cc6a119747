"""The docs show the pages as they are."""

from __future__ import annotations

import pytest

from tests.checkout import CHECKOUT
from tests.console.shown_pictures import FOLDER, MAX_BYTES, PICTURES, made_from, picture, recorded


@pytest.mark.parametrize("name", PICTURES)
def test_picture_was_made_from_the_page_as_it_is(name: str) -> None:
    made, now = recorded().get(name, {}), made_from(name)
    changed = [file for file in now if made.get(file) != now[file]]
    assert not changed, f"{changed} changed since the picture was made. Run: make pictures"


@pytest.mark.parametrize("name", PICTURES)
def test_picture_is_small_and_shown(name: str) -> None:
    assert picture(name).stat().st_size <= MAX_BYTES
    assert f"pictures/{name}.png" in (CHECKOUT / "docs/how-to/console.md").read_text()


def test_docs_hold_no_other_picture_of_the_console() -> None:
    assert {file.stem for file in FOLDER.glob("*.png")} == set(PICTURES)
