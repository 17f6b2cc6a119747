"""A client written to the original's wire format, and to nothing of this project.

The original's client decoded each file, encoded it as JPEG, and posted a JSON list of base64 texts. It returned the
body's JSON, whatever the status was, and the status.
"""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

TIMEOUT_S = 60.0
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class OriginalClient:
    """Posts images to ``/``, as the original's client did.

    Args:
        url: ``http://host:port``.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, paths: Iterable[Path]) -> tuple[Any, int]:
        """Classify files; return the JSON of the answer and its status code."""
        return self.post([base64.b64encode(as_jpeg(path)).decode("utf-8") for path in paths])

    def post(self, texts: list[str]) -> tuple[Any, int]:
        """Send base64 texts; return the JSON of the answer and its status code."""
        body = json.dumps(texts).encode("utf-8")
        request = urllib.request.Request(
            self._url, body, {"Content-Type": "application/json; charset=utf-8"}, method="POST"
        )
        try:
            with _open(request, timeout=TIMEOUT_S) as answer:
                return json.loads(answer.read()), answer.status
        except urllib.error.HTTPError as error:
            return json.loads(error.read()), error.code


def as_jpeg(path: Path) -> bytes:
    """Encode an image file again, as JPEG."""
    file = io.BytesIO()
    Image.open(path).convert("RGB").save(file, format="JPEG")
    return file.getvalue()
