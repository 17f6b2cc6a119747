"""Writes input files for perf_analyzer."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence


def encode_input(images: Sequence[bytes]) -> str:
    """Encode the inputs of requests to ``ensemble`` in perf_analyzer's format.

    Args:
        images: The bytes of each request's image file.

    Returns:
        JSON text. Each BYTES element is base64 of the file's length as a little-endian uint32, followed by the file.
    """
    elements = [struct.pack("<I", len(image)) + image for image in images]
    return json.dumps({"data": [{"IMAGE": {"b64": base64.b64encode(element).decode("ascii")}} for element in elements]})
