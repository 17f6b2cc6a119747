"""Makes thumbnails, in guarded processes: no image is decoded in the console's own."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from PIL import Image

from inference_export.base_set.decoding import Decoders, Geometry, open_decoder

SIDE = 256  # pixels
MEDIA_TYPE = "image/webp"
_IDLE_S = 60.0  # after which the processes end
_QUALITY = 82
_GEOMETRY = Geometry(resize="pad", pad_color=(118, 126, 132), orientation="upright")


class Thumbnails:
    """Makes thumbnails of one size, upright, and padded where an image is no square.

    The processes start with the first image, and end when none has come for ``_IDLE_S`` seconds.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "thumbnails")  # decoders belong to one thread
        self._decoders: Decoders | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def make(self, files: Sequence[bytes]) -> list[bytes | None]:
        """Make the thumbnails of image files.

        Args:
            files: The files' bytes, or their base64.

        Returns:
            A WebP file without metadata for each, ``SIDE`` x ``SIDE`` pixels; None for a file that can't be decoded.
        """
        loop = asyncio.get_running_loop()
        if self._idle is not None:
            self._idle.cancel()
        try:
            return await loop.run_in_executor(self._thread, self._make, list(files))
        finally:
            if self._idle is not None:
                self._idle.cancel()
            self._idle = loop.call_later(_IDLE_S, self._thread.submit, self._end)

    async def close(self) -> None:
        """End the processes."""
        if self._idle is not None:
            self._idle.cancel()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._end)
        self._thread.shutdown()

    def _make(self, files: list[bytes]) -> list[bytes | None]:
        try:
            if self._decoders is None:
                self._decoders = open_decoder(SIDE, "reduced", geometry=_GEOMETRY).__enter__()
            results = self._decoders.decode(files)
        except OSError:  # the system starts no process: an answer without pictures is better than none
            self._end()
            return [None] * len(files)
        return [
            None if reason else _encode(pixels) for pixels, reason in zip(results.pixels, results.reasons, strict=True)
        ]

    def _end(self) -> None:
        if self._decoders is not None:
            with contextlib.suppress(OSError):
                self._decoders.__exit__(None, None, None)
            self._decoders = None


def _encode(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=_QUALITY, method=2)
    return buffer.getvalue()
