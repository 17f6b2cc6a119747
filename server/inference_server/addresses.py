"""Addresses at which a server listens and is reached."""

from __future__ import annotations

import socket
import urllib.request

from inference_server.errors import ServerError

LOOPBACK = "127.0.0.1"
_ALL_ADDRESSES = {"0.0.0.0", "::", ""}  # noqa: S104  (compared with, not listened on)

# Asks a server of this machine, and never through the proxy that http_proxy names.
open_url = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


def base_url(host: str, port: int) -> str:
    """Build the URL at which this machine reaches a server.

    Args:
        host: Address that the server listens on.
        port: HTTP port of the server.

    Returns:
        ``http://host:port``, with the loopback address if the server listens on all addresses.
    """
    host = LOOPBACK if host in _ALL_ADDRESSES else host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def require_free(host: str, port: int) -> None:
    """Check that a server can listen on an address.

    Raises:
        ServerError: The address is in use, or does not belong to this machine.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ServerError(
            f"{host}:{port} can't be listened on ({error.strerror}). Choose another address with --host, --port, "
            f"--metrics_port or --watch_metrics_port."
        ) from error
