"""Checks that a server really classifies: Triton may be ready though a process hangs or, before 26.04, has died."""

from __future__ import annotations

import base64
import http.client
import io
import json
import time
import urllib.error
import urllib.request

from PIL import Image

from inference_client.command_line.formatting import printable
from inference_client.settings import CLIENT_ID_HEADER
from inference_export.repository.configs import ENSEMBLE
from inference_server.addresses import base_url, open_url
from inference_server.errors import ServerError

TIMEOUT_S = 5.0
HEALTH_CHECK = "health-check"  # the client id of checks; the models keep checks out of the similarity metrics
_SIDE = 8  # pixels
_PAUSE_S = 0.5
_IS_SERVER = "Is inference-server or tritonserver running there, and this its HTTP port?"


def check(host: str, port: int, timeout_s: float = TIMEOUT_S) -> None:
    """Ask a server to classify a small image; ask again while the server is too busy.

    Args:
        host: Address that the server listens on.
        port: HTTP port of the server.
        timeout_s: Longest time until the answer, in seconds.

    Raises:
        ServerError: The server did not classify the image in time; the message quotes its answer.
    """
    deadline_s = time.monotonic() + timeout_s
    url = f"{base_url(host, port)}/v2/models/{ENSEMBLE}/infer"
    request = urllib.request.Request(url, _body(), {"Content-Type": "application/json"})  # noqa: S310
    while True:
        try:
            left_s = max(deadline_s - time.monotonic(), _PAUSE_S)
            with open_url(request, timeout=left_s) as answer:
                json.load(answer)["outputs"][0]["data"][0]
            return
        except urllib.error.HTTPError as error:
            is_busy = error.code == http.HTTPStatus.SERVICE_UNAVAILABLE
            if not is_busy or time.monotonic() + _PAUSE_S >= deadline_s:
                message = error.read(500).decode("utf-8", "replace")
                raise ServerError(f"{url} answered {error.code}: {message}") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            said = getattr(reason, "strerror", None) or reason
            within = f" within {timeout_s:g} s" if isinstance(reason, TimeoutError) else ""
            # What is not HTTP, such as Triton's gRPC port, may have said anything.
            said = printable(str(said).strip())
            raise ServerError(f"{url} gave no label{within}: {said}. {_IS_SERVER}") from error
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ServerError(f"{url} answered without a label. {_IS_SERVER}") from error
        time.sleep(_PAUSE_S)


def _body() -> bytes:
    file = io.BytesIO()
    Image.new("L", (_SIDE, _SIDE), 128).save(file, "PNG")
    text = base64.b64encode(file.getvalue()).decode()
    return json.dumps({
        "inputs": [{"name": "IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": [text]}],
        "outputs": [{"name": "LABEL"}],
        "parameters": {CLIENT_ID_HEADER.lower(): HEALTH_CHECK},
    }).encode()  # fmt: skip
