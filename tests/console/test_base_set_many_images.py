"""A base set of 10,000 images in the console."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from inference_console.base_set.previews import keep_files, preview_addition, preview_path
from inference_console.pages.base_set import IMAGES_OF_A_CLASS, IMAGES_ON_A_PAGE
from inference_server.base_set.command import main
from tests.base_set.conftest import Living, make_living
from tests.console.running import RunningConsole, running_console
from tests.once import make_once

pytestmark = pytest.mark.slow

IMAGES = 10_000
DIFFERENT = 50
HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def many(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Living:
    """A base set of 10,000 names of a few images, which nobody has to read again."""
    made = make_once(shared / "living", make_living)
    living = Living(folder=Path(shutil.copytree(made, tmp_path_factory.mktemp("many") / "living")))
    colors = np.random.default_rng(0).integers(0, 256, (DIFFERENT, 3)).tolist()
    faces = living.base / "face"
    for number, color in enumerate(colors):
        Image.new("RGB", (16, 16), tuple(color)).save(faces / f"m{number:05}.png")
    living.ask("sync")
    for number in range(DIFFERENT, IMAGES - 7):
        os.link(faces / f"m{number % DIFFERENT:05}.png", faces / f"m{number:05}.png")
    time.sleep(2.1)  # files that have just changed are read again
    living.ask("sync")
    return living


@pytest.fixture(scope="module")
def console(many: Living) -> Iterator[RunningConsole]:
    given = ("-ip", "http://127.0.0.1:9", "-data", str(many.base), "--model_repository", str(many.repository))
    with running_console(many.folder / "log", *given, "--cache", str(many.cache)) as running:
        yield running


def test_pages_of_10000_images_show_a_part_each(console: RunningConsole) -> None:
    assert len(console.ask("GET", "/base-set").json["images"]) == IMAGES
    page = console.ask("GET", "/base-set", headers=HTML).text
    assert f"{IMAGES} reference images" in page
    assert page.count("<img") < 3 * IMAGES_OF_A_CLASS
    faces, last = IMAGES - 3, -(-(IMAGES - 3) // IMAGES_ON_A_PAGE)
    assert console.ask("GET", f"/base-set?class=face&page={last + 1}", headers=HTML).status == 404
    shown = []
    for number in range(1, last + 1):
        page = console.ask("GET", f"/base-set?class=face&page={number}", headers=HTML).text
        assert f"Page {number} of {last}" in page
        names = re.findall(r'value="(face/[^"]+)"', page)
        assert len(names) <= IMAGES_ON_A_PAGE
        shown += names
    assert len(shown) == len({*shown}) == faces


def test_check_among_10000_images_reads_the_new_one_alone(many: Living, tmp_path: Path) -> None:
    file = tmp_path / "new.png"
    Image.new("RGB", (16, 16), "red").save(file)
    addition = keep_files(tmp_path / "private", many.base, "face", [("new.png", file.read_bytes())], rename=False)
    preview_addition(tmp_path / "private", many.base, addition)
    given = ["check", "-data", preview_path(tmp_path / "private"), "--model_repository", many.repository,
             "--cache", many.cache]  # fmt: skip
    checked = CliRunner().invoke(main, list(map(str, given)))
    assert "images: 1 added" in checked.stdout, checked.output
    assert "reading base images: 1 of 1" in checked.stderr
    assert "comparing new images: 1 of 1" in checked.stderr
