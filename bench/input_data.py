"""Input files in perf_analyzer's form."""

from __future__ import annotations

import base64
import json
import struct
from importlib.util import find_spec
from pathlib import Path

from .errors import BenchError


def find_photograph() -> Path:
    """Find a real JPEG, 640 x 427 pixels, in scikit-image's wheel; nothing is downloaded.

    Raises:
        BenchError: scikit-image is not installed, or its wheel carries no such file.
    """
    package = find_spec("skimage")
    if package is None or not package.submodule_search_locations:
        raise BenchError(
            "scikit-image is not installed, and its wheel carries the photograph. Install the bench extra:\n"
            "  pip install -e '.[bench]'"
        )
    path = Path(package.submodule_search_locations[0]) / "data" / "rocket.jpg"
    if not path.is_file():
        raise BenchError(f"{path} is missing. Install scikit-image again, from its wheel.")
    return path


def encode_input(image: bytes) -> str:
    """Write the input of one request to ``ensemble`` as perf_analyzer reads it.

    Args:
        image: The file's bytes.

    Returns:
        JSON text. A BYTES element in it is base64 of its length, a little-endian uint32, and the bytes.
    """
    element = struct.pack("<I", len(image)) + image
    return json.dumps({"data": [{"IMAGE": {"b64": base64.b64encode(element).decode("ascii")}}]})
