"""Whether a server really classifies: its own ready says nothing of the processes of its models."""

from __future__ import annotations

import base64
import http.client
import json
import struct
import time
import urllib.error
import urllib.request
import zlib

from inference_client.settings import CLIENT_ID_HEADER
from inference_export.repository.configs import ENSEMBLE
from inference_server.triton.tritonserver import LOOPBACK, ServerError

TIMEOUT_S = 5.0
EVERY_ADDRESS = {"0.0.0.0", "::", ""}  # noqa: S104  (to connect, not to listen)
HEALTH_CHECK = "health-check"  # as a client; the models leave it out of the distribution of similarities
_SIDE = 8
_BUSY = 503  # a full queue, or too long a wait in it
_PAUSE_S = 0.5


def base_url(host: str, port: int) -> str:
    """Say how a server is reached that listens on an address, from the same machine."""
    host = LOOPBACK if host in EVERY_ADDRESS else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def check(host: str, port: int, timeout_s: float = TIMEOUT_S) -> None:
    """Have a server classify a small image; a busy one is asked again until the time is over.

    Args:
        host: Address that it listens on.
        port: Its HTTP port.
        timeout_s: How long it has.

    Raises:
        ServerError: It did not within ``timeout_s``; says what it did.
    """
    deadline_s = time.monotonic() + timeout_s
    url = f"{base_url(host, port)}/v2/models/{ENSEMBLE}/infer"
    image = {"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": [base64.b64encode(_png()).decode()]}
    body = json.dumps({
        "inputs": [image],
        "outputs": [{"name": "LABEL"}],
        "parameters": {CLIENT_ID_HEADER.lower(): HEALTH_CHECK},
    }).encode()  # fmt: skip
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310
    while True:
        try:
            left_s = max(deadline_s - time.monotonic(), _PAUSE_S)
            with urllib.request.urlopen(request, timeout=left_s) as answer:  # noqa: S310
                json.load(answer)["outputs"][0]["data"][0]
            return
        except urllib.error.HTTPError as error:
            if error.code != _BUSY or time.monotonic() + _PAUSE_S >= deadline_s:
                message = error.read(500).decode("utf-8", "replace")
                raise ServerError(f"{url} answered {error.code}: {message}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ServerError(f"{url} gave no label within {timeout_s:g} s: {reason}. Is it running?") from error
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ServerError(f"{url} answered something else than a label. Is it tritonserver?") from error
        time.sleep(_PAUSE_S)


def _png() -> bytes:
    """Make a small grey PNG file, without an image library."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0)
    rows = (b"\0" + b"\x80" * _SIDE) * _SIDE
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
