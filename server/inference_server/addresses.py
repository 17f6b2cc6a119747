"""Addresses at which a server listens and is reached."""

from __future__ import annotations

import errno
import socket
import urllib.request
from collections.abc import Mapping
from itertools import combinations

from inference_server.errors import ServerError
from inference_server.listeners import listener

LOOPBACK = "127.0.0.1"
_ALL_ADDRESSES = {"0.0.0.0", "::", ""}  # noqa: S104  (compared with, not listened on)
# The option that sets the host of a port, where it is not --host.
_HOST_OPTIONS = dict.fromkeys(("--metrics_port", "--watch_metrics_port"), "-- --metrics-address")

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


def require_free(addresses: Mapping[str, tuple[str, int]], *, command: str = "inference-server") -> None:
    """Check that a server can listen on addresses.

    Args:
        addresses: Host and port, by the option that sets the port.
        command: The command that would listen there.

    Raises:
        ServerError: Two addresses are the same, or one is in use or does not belong to this machine.
    """
    for (option, (host, port)), (other, (other_host, other_port)) in combinations(addresses.items(), 2):
        hosts = {host, other_host}
        if port == other_port and (len(hosts) == 1 or hosts & _ALL_ADDRESSES):
            raise ServerError(f"{option} and {other} are both {port}. Give each a port of its own.")
    for option, (host, port) in addresses.items():
        _require_free(host, port, option, command)


def _require_free(host: str, port: int, option: str, command: str) -> None:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        remedy = f"Choose another port with {option}."
        if error.errno == errno.EADDRINUSE:
            holder = listener(port) or "another process"
            remedy = f"It is taken by {holder}; another {command}? {remedy}"
        elif error.errno != errno.EACCES:  # ports below 1024 may be root's
            remedy = f"Is {host} an address of this machine? Choose one with {_HOST_OPTIONS.get(option, '--host')}."
        raise ServerError(f"{host}:{port} can't be listened on ({error.strerror}). {remedy}") from error
