"""How a client reaches its server. Everything is validated before anything is sent."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443}
LARGEST_PORT = 65535

CLIENT_ID_HEADER = "X-Client-Id"
API_KEY_HEADER = "X-API-Key"

# What the library says of keys. Commands put their options' names in its place.
KEY_REMEDY = "Is api_key right?"
KEY_INSTEAD = "give api_key= instead"
HEADER_ARGUMENTS = ("client_id", "api_key")
BAD_HEADER = "{argument} can't be sent as an HTTP header"
FROM_FILE = "If you read it from a file, try {argument}=text.strip()"

_URL_EXAMPLE = "give http://host:port, host:port or https://host:port, for example http://localhost:8080"
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
API_PATH = "/v2/"
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
_PATH = re.compile(r"[!-~]*")
_HEADER_VALUE = re.compile(r"[ -~]+")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a client reaches its server.

    Attributes:
        url: The server's address as messages show it: ``scheme://host:port`` and the base path if there is one.
        timeout_s: Deadline of one request with its retries, seconds, > 0.
        connect_timeout_s: Deadline of opening one connection, seconds, > 0.
        headers: Headers of every request.
    """

    url: str
    timeout_s: float
    connect_timeout_s: float
    headers: Mapping[str, str]


def read_settings(
    url: str, *, timeout_s: float, connect_timeout_s: float, client_id: str | None, api_key: str | None
) -> Settings:
    """Validate the arguments of a client.

    Args:
        url: ``http://host:port``, ``host:port`` or ``https://host:port``; a base path may follow. A URL with a scheme
            may leave out the port, which is then the scheme's.
        timeout_s: Deadline of one request, seconds, finite and > 0.
        connect_timeout_s: Deadline of opening one connection, seconds, finite and > 0.
        client_id: Value of the ``X-Client-Id`` header, printable ASCII; None sends none.
        api_key: Value of the ``X-API-Key`` header, printable ASCII; None sends none.

    Returns:
        The validated settings.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is wrong; the message says what to give instead.
    """
    headers = {
        name: _header_value(argument, value)
        for name, argument, value in zip(
            (CLIENT_ID_HEADER, API_KEY_HEADER), HEADER_ARGUMENTS, (client_id, api_key), strict=True
        )
        if value is not None
    }
    return Settings(
        url=_read_url(url),
        timeout_s=_seconds("timeout_s", timeout_s),
        connect_timeout_s=_seconds("connect_timeout_s", connect_timeout_s),
        headers=headers,
    )


def _read_url(url: str) -> str:
    if not isinstance(url, str):
        raise TypeError(f"the server's url is {url!r}: {_URL_EXAMPLE}")
    text = url.strip()
    has_scheme = _SCHEME.match(text) is not None
    try:
        parts = urlsplit(text if has_scheme else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is no server address ({error}): {_URL_EXAMPLE}") from error
    scheme = parts.scheme
    reason = None
    if scheme not in DEFAULT_PORTS:
        reason = f"its scheme is {scheme!r}"
    elif parts.username is not None or parts.password is not None:
        raise ValueError(f"the server's url holds a user name or password: leave it out, and {KEY_INSTEAD}")
    elif not host or not (_IPV6 if ":" in host else _HOST_NAME).fullmatch(host):
        reason = "its host name is missing or misspelt"
    elif parts.query or parts.fragment or "?" in text or "#" in text:
        reason = "a query or fragment has no meaning here"
    elif not _PATH.fullmatch(parts.path):
        reason = "its path holds a space or another character that must be percent-encoded"
    elif API_PATH in f"{parts.path}/":
        reason = f"the client adds {API_PATH} itself"
    elif port is None and not has_scheme:
        reason = "the port is missing"
    elif port == 0:
        reason = f"the port must be 1 to {LARGEST_PORT}"
    if reason is not None:
        raise ValueError(f"{url!r} is no server address, {reason}: {_URL_EXAMPLE}")
    bracketed = f"[{host}]" if ":" in str(host) else host
    return f"{scheme}://{bracketed}:{port or DEFAULT_PORTS[scheme]}/{parts.path.strip('/')}".rstrip("/")


def _seconds(argument: str, value: float) -> float:
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    except (TypeError, ValueError) as error:
        raise type(error)(f"{argument} is {value!r}: give a number of seconds greater than 0") from error
    if not math.isfinite(seconds) or seconds <= 0:
        raise ValueError(f"{argument} is {value!r}: give a finite number of seconds greater than 0")
    return seconds


def _header_value(argument: str, value: str) -> str:
    # ASCII only: tritonclient 2.51 would send other characters as UTF-8, newer ones as latin-1.
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a string, not {type(value).__name__}")
    if not _HEADER_VALUE.fullmatch(value):
        # The value is not shown: it may be a key.
        raise ValueError(
            f"{BAD_HEADER.format(argument=argument)}: it must be printable ASCII, without a line break, and not empty. "
            f"{FROM_FILE.format(argument=argument)}"
        )
    return value
