"""The check that must hold for any bytes."""

from __future__ import annotations

import re
import time

import numpy as np

from inference_export.base_set.decoding import Limits, UndecodableImageError, decode_pixels

SIDE = 32
# Low limits, so that the fuzzer spends its time on code and not on pixels.
LIMITS = Limits(file_bytes=1 << 16, pixels=1 << 20, scans=8)
LONGEST_S = 5.0
_LEAK = re.compile(r"/|0x[0-9a-f]|object at")


def check_decoding(data: bytes) -> None:
    """Decode exactly and reduced: within seconds, each gives pixels of the right kind or a reason without internals.

    Raises:
        AssertionError: Decoding did anything else.
    """
    began_s = time.monotonic()
    for reduced in (False, True):
        try:
            pixels = decode_pixels(data, SIDE, reduced=reduced, limits=LIMITS)
        except UndecodableImageError as error:
            assert str(error) and not _LEAK.search(str(error)), str(error)  # noqa: PT017, PT018
        else:
            assert pixels.shape == (SIDE, SIDE, 3)
            assert pixels.dtype == np.uint8
    assert time.monotonic() - began_s < LONGEST_S
