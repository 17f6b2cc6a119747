"""Bodies of JSON whose texts may be as long as an image."""

from __future__ import annotations

import tracemalloc

import pytest

from inference_console.json_bodies import JsonError, parse

M = 2**20


def test_long_texts_are_read() -> None:
    text = "A" * M
    assert parse(f'{{"images": ["{text}", "b"]}}'.encode()) == {"images": [text, "b"]}


@pytest.mark.parametrize("body", [b"", b"[", b'["a', b"[1,]", b'["\xff"]', b"1" * 5000, b"[" * 9000])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(JsonError, match="no JSON"):
        parse(body)


@pytest.mark.parametrize(
    "body",
    [b"[" * (8 * M), b"[" + b"[]," * (2 * M) + b"[]]", b"1," * (4 * M), b'["' + b'","' * (2 * M) + b'"]'],
    ids=["open", "lists", "numbers", "texts"],
)
def test_bomb_is_refused_before_it_grows(body: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(JsonError, match="more than"):
        parse(body)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < len(body)
