"""Whether a server really classifies: its own ready says nothing of the processes of its models."""

from __future__ import annotations

import base64
import http.client
import json
import struct
import urllib.error
import urllib.request
import zlib

from inference_export.configs import ENSEMBLE

from .tritonserver import LOOPBACK, ServerError

TIMEOUT_S = 5.0
EVERY_ADDRESS = {"0.0.0.0", "::", ""}  # noqa: S104  (to connect, not to listen)
_SIDE = 8


def base_url(host: str, port: int) -> str:
    """Say how a server is reached that listens on an address, from the same machine."""
    host = LOOPBACK if host in EVERY_ADDRESS else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def check(host: str, port: int) -> None:
    """Have a server classify a small image.

    Args:
        host: Address that it listens on.
        port: Its HTTP port.

    Raises:
        ServerError: It did not within ``TIMEOUT_S``; says what it did.
    """
    url = f"{base_url(host, port)}/v2/models/{ENSEMBLE}/infer"
    image = {"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": [base64.b64encode(_png()).decode()]}
    body = json.dumps({"inputs": [image], "outputs": [{"name": "LABEL"}]}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            json.load(answer)["outputs"][0]["data"][0]
    except urllib.error.HTTPError as error:
        raise ServerError(f"{url} answered {error.code}: {error.read(500).decode('utf-8', 'replace')}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ServerError(f"{url} gave no label within {TIMEOUT_S:g} s: {reason}. Is it running?") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ServerError(f"{url} answered something else than a label. Is it tritonserver?") from error


def _png() -> bytes:
    """Make a small grey PNG file, without an image library."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 0, 0, 0, 0)
    rows = (b"\0" + b"\x80" * _SIDE) * _SIDE
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
