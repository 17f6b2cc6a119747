"""Heavy files are well-formed images, and the search for more builds such files."""

from __future__ import annotations

import base64
import io
import random
import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fuzz.moves import grow
from tests.fuzz.structure import CONTAINERS, seeds
from tests.heavy import FILES, HEAVIEST, HeavyFile

SMALL = 0.002
TEXT = "base64-words"
SEEDS = seeds()


def _pixels(data: bytes) -> np.ndarray[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warns of many entries in place of one
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("heavy", FILES, ids=lambda heavy: heavy.name)
def test_small_form_of_a_heavy_file_is_an_image_that_pillow_decodes(heavy: HeavyFile) -> None:
    data = heavy.build(SMALL)
    assert _pixels(base64.b64decode(data) if heavy.name == TEXT else data).size
    assert data == heavy.build(SMALL)


def test_heaviest_files_cost_in_every_way_and_format() -> None:
    assert {heavy.way for heavy in HEAVIEST} == {"metadata", "pixels", "repetition"}
    assert {heavy.name.split("-")[0] for heavy in HEAVIEST} == {
        "avif", "bmp", "gif", "heic", "jpeg", "png", "tiff", "webp",
    }  # fmt: skip


def test_file_taken_apart_and_built_again_has_the_same_pixels() -> None:
    for kind, data in SEEDS:
        container = CONTAINERS[kind]
        np.testing.assert_array_equal(_pixels(container.build(container.read(data))), _pixels(data))


def test_structures_grow_with_the_size_asked_for_in_every_format() -> None:
    chance = random.Random(1)
    grown = set()
    for _ in range(200):
        growth = grow(*chance.choice(SEEDS), chance)
        small, large = (len(growth.build(size)) for size in (2**14, 2**17))
        if large > small + 2**16:
            grown.add(growth.kind)
    assert grown == set(CONTAINERS)
