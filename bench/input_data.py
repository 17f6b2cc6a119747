"""Input files in perf_analyzer's form."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence


def encode_input(images: Sequence[bytes]) -> str:
    """Write the inputs of requests to ``ensemble`` as perf_analyzer reads them, one after the other.

    Args:
        images: The bytes of the requests' files.

    Returns:
        JSON text. A BYTES element in it is base64 of its length, a little-endian uint32, and the bytes.
    """
    elements = [struct.pack("<I", len(image)) + image for image in images]
    return json.dumps({"data": [{"IMAGE": {"b64": base64.b64encode(each).decode("ascii")}} for each in elements]})
