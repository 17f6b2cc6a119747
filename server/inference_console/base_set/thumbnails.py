"""Thumbnails of images, made by the server's own guarded decoders and kept in memory within a bound."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from inference_export.base_set.decoding import DEFAULT_LIMITS, Decoders, Geometry, open_decoder
from inference_export.regular_files import read_regular_file

SIZE_PX = 256
MAX_KEPT_BYTES = 64 * 2**20
MOST_WAITING = 256
IDLE_S = 60.0
LONGEST_WAIT_S = 10.0  # of an answer for the pictures of its queries: a hostile image takes seconds
MEDIA_TYPE = "image/webp"
# People see an image upright, whatever the network does.
_GEOMETRY = Geometry(resize="pad", pad_color=(128, 128, 128), orientation="upright")
_QUALITY = 80
_ENTRY_BYTES = 500  # of the cache itself


class NoThumbnailError(Exception):
    """There is no thumbnail of an image; the message says why."""


class BusyError(Exception):
    """Too many thumbnails are being waited for."""


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """A thumbnail, ``SIZE_PX`` x ``SIZE_PX``, the whole image in its middle.

    Attributes:
        content: A WebP file without metadata; b"" if there is none.
        tag: Changes with the image.
        reason: Why there is none; "" if there is.
    """

    content: bytes = b""
    tag: str = ""
    reason: str = ""


class Thumbnails:
    """Makes thumbnails, one at a time, in a process of their own that ends after ``IDLE_S`` without work."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="thumbnails")
        self._decoders: Decoders | None = None
        self._kept: OrderedDict[str, Thumbnail] = OrderedDict()
        self._kept_bytes = 0
        self._under_way: dict[str, asyncio.Task[Thumbnail]] = {}
        self._waiting = 0
        self._end_of_idleness: asyncio.TimerHandle | None = None

    async def of_file(self, file: Path) -> Thumbnail:
        """Return the thumbnail of an image file. Those who ask for it at the same time share the work.

        Raises:
            NoThumbnailError: The file does not exist, can't be read or does not decode.
            BusyError: Too many thumbnails are being waited for.
        """
        try:
            status = await asyncio.to_thread(file.stat)
        except OSError as error:
            raise NoThumbnailError(f"The image can't be read: {error.strerror}.") from error
        # A change of the file changes the tag.
        values = (file, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        tag = hashlib.sha256(repr(values).encode("utf-8", "surrogateescape")).hexdigest()[:32]
        if tag in self._kept:
            self._kept.move_to_end(tag)
            return _require(self._kept[tag])
        if tag not in self._under_way:
            self._under_way[tag] = asyncio.create_task(self._keep(tag, file))
        return _require(await asyncio.shield(self._under_way[tag]))

    async def of_contents(self, contents: Sequence[bytes]) -> list[bytes | None]:
        """Return the thumbnails of images that are kept nowhere.

        Args:
            contents: The bytes of each image's file, or their base64.

        Returns:
            A WebP file for each; None for an image that does not decode, and for those that are not made within
            ``LONGEST_WAIT_S`` or while too many are waited for.
        """
        made: list[bytes | None] = [None] * len(contents)
        with contextlib.suppress(BusyError, TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT_S):
                # One after the other, so that those of other people come in between.
                for number, content in enumerate(contents):
                    (thumbnail,) = await self._run(partial(self._decode, [partial(bytes, content)]))
                    made[number] = thumbnail.content or None
        return made

    def clear(self) -> None:
        """Keep no thumbnail."""
        self._kept.clear()
        self._kept_bytes = 0

    async def close(self) -> None:
        """End the decoders."""
        if self._end_of_idleness is not None:
            self._end_of_idleness.cancel()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close_decoders)
        self._thread.shutdown()

    async def _keep(self, tag: str, file: Path) -> Thumbnail:
        try:
            (made,) = await self._run(
                lambda: self._decode([lambda: read_regular_file(file, DEFAULT_LIMITS.file_bytes)])
            )
        finally:
            del self._under_way[tag]
        thumbnail = replace(made, tag=tag)
        self._kept[tag] = thumbnail
        self._kept_bytes += _ENTRY_BYTES + len(thumbnail.content)
        while self._kept_bytes > MAX_KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= _ENTRY_BYTES + len(oldest.content)
        return thumbnail

    async def _run(self, decode: Callable[[], list[Thumbnail]]) -> list[Thumbnail]:
        """Decode in the only thread that talks to the decoders."""
        if self._waiting >= MOST_WAITING:
            raise BusyError("Too many thumbnails are being made. Try again in a few seconds.")
        self._waiting += 1
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, decode)
        finally:
            self._waiting -= 1
            if self._end_of_idleness is not None:
                self._end_of_idleness.cancel()
            self._end_of_idleness = loop.call_later(IDLE_S, loop.run_in_executor, self._thread, self._close_decoders)

    def _decode(self, reads: Sequence[Callable[[], bytes]]) -> list[Thumbnail]:
        try:
            contents = [read() for read in reads]
            if self._decoders is None:
                self._decoders = open_decoder(SIZE_PX, "reduced", geometry=_GEOMETRY, processes=1)
            results = self._decoders.decode(contents)
        except OSError as error:
            return [Thumbnail(reason=f"The image can't be read: {error.strerror or error}.")] * len(reads)
        return [
            Thumbnail(reason=f"The image does not decode: {reason}.") if reason else Thumbnail(content=_encode(pixels))
            for pixels, reason in zip(results.pixels, results.reasons, strict=True)
        ]

    def _close_decoders(self) -> None:
        if self._decoders is not None:
            self._decoders.close()
            self._decoders = None


def _encode(pixels: npt.NDArray[np.uint8]) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "WEBP", quality=_QUALITY)
    return encoded.getvalue()


def _require(thumbnail: Thumbnail) -> Thumbnail:
    if thumbnail.reason:
        raise NoThumbnailError(thumbnail.reason)
    return thumbnail
