"""Bodies of 2 MB that decompress to more than 2 GiB, which ends a tritonserver."""

from __future__ import annotations

import http.client
import ssl
import time
from urllib.parse import urlsplit

from tests.chaos.load import Expected, Load
from tests.chaos.requests import INFER, JSON
from tests.chaos.tally import Tally
from tests.compressed import compressed_spaces
from tests.gateway import CERTIFICATE
from tests.watched import WatchedServer

MEBIBYTES = 2100
TIMEOUT_S = 120.0
ENDED = "it ended with code -6"


def send_to_gateway(url: str, key: str, server: WatchedServer, expected: Expected, times: int) -> Tally:
    """Send such bodies through the gateway under load. All are refused, and none reaches the server."""
    tally = Tally(what=f"{MEBIBYTES} MiB in a body of 2 MB, through the gateway", times=times)
    body = compressed_spaces(MEBIBYTES)
    seconds = []
    with Load(url, [expected], tally, clients=2, pause_s=0.1, api_key=key) as load:
        for number in range(times):
            began_s = time.monotonic()
            status = _send(url, body, {"Content-Encoding": ("gzip", "deflate", "br")[number % 3], "X-API-Key": key})
            seconds.append(time.monotonic() - began_s)
            tally.sent += 1
            tally.refused += status == http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE
            tally.wrong += status != http.HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    tally.notes += [f"refused within {max(seconds):.2f} s", *load.failures[:3]]
    assert "restarting" not in server.said(), server.said()[-2000:]
    return tally


def send_to_server(server: WatchedServer, expected: Expected) -> Tally:
    """Send one such body to the server itself. The server dies and is restarted; clients that retry lose nothing."""
    tally = Tally(what=f"{MEBIBYTES} MiB in a body of 2 MB, to the server itself", times=1)
    triton = server.tritonserver()
    with Load(server.url, [expected], tally, clients=2, timeout_s=TIMEOUT_S, pause_s=0.1) as load:
        began_s = time.monotonic()
        status = _send(server.url, compressed_spaces(MEBIBYTES), {"Content-Encoding": "gzip"})
        died_s = time.monotonic() - began_s
        assert status == 0, f"answered {status}: is it defended now?"
        triton.wait(TIMEOUT_S)
        server.wait_until_serving()
    back_s = time.monotonic() - began_s - died_s
    tally.notes += [f"died after {died_s:.1f} s, back {back_s:.1f} s later", *load.failures[:3]]
    assert ENDED in server.said()
    return tally


def _send(url: str, body: bytes, headers: dict[str, str]) -> int:
    """Send a body. Return the status, or 0 if the connection was closed without one."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT_S)
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=str(CERTIFICATE))
        connection = http.client.HTTPSConnection(str(parts.hostname), parts.port, timeout=TIMEOUT_S, context=context)
    try:
        connection.request("POST", INFER, body, {**JSON, **headers})
        return connection.getresponse().status
    except (ConnectionError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
