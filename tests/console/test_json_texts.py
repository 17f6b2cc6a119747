"""JSON whose texts may be as long as an image."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from inference_console.json_texts import LONG_TEXT_BYTES, JsonError, parse

LONG = "A" * LONG_TEXT_BYTES
M = 2**20


@pytest.mark.parametrize(
    "value",
    [
        [],
        {},
        None,
        "",
        [""],
        ["a", "b"],
        {"images": ["a"], "more": [1, -2.5, True, None, {"": []}]},
        'a"b\\',
        ["\\", '\\"', '"', "\u2028ä😀"],
        [1e300, 10**100],
    ],
)
def test_short_values_are_what_json_makes_of_them(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=2)):
        assert parse(text.encode()) == value


def test_long_texts_are_bytes_in_their_places() -> None:
    value = {"images": [LONG, "short", LONG + "B"], "NaN": "NaN"}
    expected = {"images": [LONG.encode(), "short", LONG.encode() + b"B"], "NaN": "NaN"}
    assert parse(json.dumps(value).encode()) == expected


def test_escapes_in_long_texts_are_read() -> None:
    written = json.dumps([LONG + "/é" + '"' + LONG]).replace("/", "\\/")  # as PHP writes it
    assert parse(written.encode()) == [(LONG + "/é" + '"' + LONG).encode()]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b'["',
        b'["a',
        b'["a\\"]',
        b"[1,]",
        b"[NaN]",
        b"[Infinity]",
        f'[NaN, "{LONG}"]'.encode(),
        f'[Infinity, "{LONG}"]'.encode(),
        f'{{"{LONG}": 1}}'.encode(),
        f'["{LONG}\n\\u0041"]'.encode(),
        f'["{LONG}\\x"]'.encode(),
        f'["{LONG}ä"]'.encode(),
        b'["\xff"]',
        "[]".encode("utf-16"),
        b"1" * 5000,
        b"[" * 100_000,
        b'{"a":' * 40_000,
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(JsonError, match=r"JSON|ASCII"):
        parse(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * (8 * M),
        b"[" + b"[]," * (2 * M) + b"[]]",
        b"1," * (4 * M),
        b'["' + b'","' * (2 * M) + b'"]',
        b'["' + b'\\"' * (4 * M) + b'"]',
        b'["' + b"\\" * (8 * M) + b'"]',
        b" " * (8 * M),
    ],
    ids=["open", "lists", "numbers", "texts", "quotes", "backslashes", "spaces"],
)
def test_bomb_is_refused_before_it_grows(body: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(JsonError, match="holds more than"):
        parse(body)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 2 * len(body)
