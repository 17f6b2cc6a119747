"""Thumbnails: what they hold, what is kept, and what makes them."""

from __future__ import annotations

import asyncio
import io
import os
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from PIL import Image

from inference_console.base_set import thumbnails as thumbnails_module
from inference_console.base_set.thumbnails import SIZE_PX, BusyError, NoThumbnailError, Thumbnail, Thumbnails

T = TypeVar("T")
HOSTILE = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "html": b"<!doctype html><script>alert(1)</script>",
    "empty": b"",
    "truncated": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
}


def run(use: Callable[[Thumbnails], Awaitable[T]]) -> T:
    async def with_thumbnails() -> T:
        thumbnails = Thumbnails()
        try:
            return await use(thumbnails)
        finally:
            await thumbnails.close()

    return asyncio.run(with_thumbnails())


def write(file: Path, size: tuple[int, int] = (40, 20), color: str = "white", **options: Any) -> Path:
    Image.new("RGB", size, color).save(file, **options)
    return file


def decode(thumbnail: Thumbnail) -> Image.Image:
    return Image.open(io.BytesIO(thumbnail.content))


def color_at(image: Image.Image, row: int) -> tuple[int, int, int]:
    """Return the color in the middle of a row."""
    red, green, blue = image.convert("RGB").crop((SIZE_PX // 2, row, SIZE_PX // 2 + 1, row + 1)).tobytes()
    return red, green, blue


def test_whole_image_is_shown_in_its_proportions(tmp_path: Path) -> None:
    image = decode(run(lambda made: made.of_file(write(tmp_path / "wide.png"))))
    assert (image.format, image.size) == ("WEBP", (SIZE_PX, SIZE_PX))
    middle, above = (color_at(image, row) for row in (SIZE_PX // 2, SIZE_PX // 8))
    assert min(middle) > 240
    assert 110 < min(above) <= max(above) < 145


def test_thumbnail_is_upright_and_holds_no_metadata(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "Anna, ward 7"
    thumbnail = run(lambda made: made.of_file(write(tmp_path / "a.jpg", exif=exif)))
    assert b"Anna" not in thumbnail.content
    image = decode(thumbnail)
    assert not image.getexif()
    assert min(color_at(image, SIZE_PX // 8)) > 240  # it stands


def test_what_is_no_image_has_no_thumbnail_but_a_reason(tmp_path: Path) -> None:
    async def ask(made: Thumbnails) -> dict[str, object]:
        answers: dict[str, object] = {}
        for name, content in HOSTILE.items():
            (tmp_path / f"{name}.png").write_bytes(content)
            (answers[name],) = await asyncio.gather(made.of_file(tmp_path / f"{name}.png"), return_exceptions=True)
        return answers

    for answer in run(ask).values():
        assert isinstance(answer, NoThumbnailError)
        assert "does not decode" in str(answer)


def test_pipe_and_missing_file_have_no_thumbnail(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    for file in (tmp_path / "pipe.png", tmp_path / "missing.png"):
        with pytest.raises(NoThumbnailError, match="can't be read"):
            run(partial(Thumbnails.of_file, file=file))


def test_those_who_ask_at_once_share_the_work_and_a_changed_file_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path / "a.png")
    decoded = []
    original = Thumbnails._decode

    def count(self: Thumbnails, reads: Sequence[Callable[[], bytes]]) -> list[Thumbnail]:
        decoded.append(len(reads))
        return original(self, reads)

    monkeypatch.setattr(Thumbnails, "_decode", count)

    async def ask(made: Thumbnails) -> tuple[list[Thumbnail], Thumbnail]:
        same = await asyncio.gather(*(made.of_file(file) for _ in range(20)))
        same.append(await made.of_file(file))
        write(file, color="red")
        return same, await made.of_file(file)

    same, changed = run(ask)
    assert {thumbnail.tag for thumbnail in same} == {same[0].tag} != {changed.tag}
    assert decoded == [1, 1]


def test_memory_of_kept_thumbnails_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [write(tmp_path / f"{number}.png", color=f"#0000{number:02x}") for number in range(20)]
    monkeypatch.setattr(thumbnails_module, "MAX_KEPT_BYTES", 5_000)

    async def ask(made: Thumbnails) -> tuple[int, int]:
        for file in files:
            await made.of_file(file)
        return len(made._kept), made._kept_bytes

    kept, kept_bytes = run(ask)
    assert 1 <= kept < len(files)
    assert kept_bytes <= 5_000


def test_too_many_who_wait_are_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [write(tmp_path / f"{number}.png", color=f"#0000{number:02x}") for number in range(8)]
    monkeypatch.setattr(thumbnails_module, "MOST_WAITING", 3)

    async def ask(made: Thumbnails) -> list[object]:
        return await asyncio.gather(*(made.of_file(file) for file in files), return_exceptions=True)

    assert Counter(map(type, run(ask))) == {Thumbnail: 3, BusyError: 5}


def test_decoders_end_when_they_are_idle_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails_module, "IDLE_S", 0.05)
    one, other = write(tmp_path / "a.png"), write(tmp_path / "b.png", color="red")
    me = psutil.Process()
    before = {child.pid for child in me.children()}

    async def ask(made: Thumbnails) -> Thumbnail:
        await made.of_file(one)
        while {child.pid for child in me.children() if child.status() != psutil.STATUS_ZOMBIE} - before:
            await asyncio.sleep(0.02)
        return await made.of_file(other)

    assert run(ask).content


def test_images_of_one_person_let_those_of_others_come_in_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, query = write(tmp_path / "base.png"), write(tmp_path / "query.png", color="red").read_bytes()
    order: list[bytes] = []

    def note(_: Thumbnails, reads: Sequence[Callable[[], bytes]]) -> list[Thumbnail]:
        time.sleep(0.05 * len(reads))
        order.extend(read() for read in reads)
        return [Thumbnail(content=b"webp")] * len(reads)

    monkeypatch.setattr(Thumbnails, "_decode", note)

    async def ask(made: Thumbnails) -> None:
        await asyncio.gather(made.of_contents([query] * 20), made.of_file(base))

    run(ask)
    assert order.index(base.read_bytes()) < len(order) - 1


def test_answer_does_not_wait_long_for_the_pictures_of_its_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thumbnails_module, "LONGEST_WAIT_S", 0.05, raising=False)
    go_on = threading.Event()

    def wait(_: Thumbnails, reads: Sequence[Callable[[], bytes]]) -> list[Thumbnail]:
        go_on.wait(10)
        return [Thumbnail(content=b"webp")] * len(reads)

    monkeypatch.setattr(Thumbnails, "_decode", wait)

    async def ask(made: Thumbnails) -> list[bytes | None]:
        contents = await made.of_contents([b"slow"] * 3)
        go_on.set()
        return contents

    assert run(ask) == [None] * 3
