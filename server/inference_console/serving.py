"""Serves the console until a signal stops it."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any

import click
import uvicorn

from inference_console.app import create_app
from inference_console.security.connections import MAX_CONNECTIONS, PromptProtocol
from inference_console.settings import Settings
from inference_server.addresses import base_url, require_free

_KEEP_ALIVE_S = 60
_STOP_TIMEOUT_S = 10
_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def serve(settings: Settings, *, host: str, port: int, proxies: Sequence[str]) -> None:
    """Serve the console until SIGTERM or SIGINT.

    Args:
        settings: What the console is started with.
        host: Address to listen on.
        port: Port to listen on.
        proxies: Addresses and networks whose X-Forwarded-For and X-Forwarded-Proto count.

    Raises:
        ServerError: The address can't be listened on.
        ValueError: The server's address or key is wrong, a proxy is no address, or a host name is no name.
    """
    for proxy in proxies:
        _require_address(proxy)
    for name in settings.host_names:
        _require_name(name)
    require_free({"--port": (host, port)}, command="inference-console")
    options: dict[str, Any] = {
        "http": PromptProtocol,
        "ws": "none",
        "lifespan": "on",
        "log_config": None,
        "log_level": "error",  # a broken request is no news
        "access_log": False,
        "server_header": False,
        "proxy_headers": bool(proxies),
        "forwarded_allow_ips": list(proxies),
        "timeout_keep_alive": _KEEP_ALIVE_S,
        "timeout_graceful_shutdown": _STOP_TIMEOUT_S,
        "limit_concurrency": MAX_CONNECTIONS,
    }
    server = _Server(uvicorn.Config(create_app(settings), host=host, port=port, **options))
    server.address = base_url(host, port)
    server.run()


def _require_address(proxy: str) -> None:
    try:
        ipaddress.ip_network(proxy)
    except ValueError as error:
        raise ValueError(
            f"--proxy {proxy} is neither an IP address nor a network. Give the gateway's, for example 10.0.0.5 or "
            f"10.0.0.0/24."
        ) from error


def _require_name(name: str) -> None:
    if not _HOST_NAME.fullmatch(name):
        raise ValueError(
            f"--host_name {name} is not a name alone. Give it as browsers send it, without http://, port and path, for "
            f"example classify.example.org, and xn--... for a name with other letters."
        )


class _Server(uvicorn.Server):
    address = ""

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if self.started:
            click.echo(f"console at {self.address}", err=True)
