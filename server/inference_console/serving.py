"""Serves the console until a signal stops it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import click
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from inference_console.app import create_app
from inference_console.settings import Settings
from inference_server.addresses import base_url, require_free

HEADERS_TIMEOUT_S = 10.0
_KEEP_ALIVE_S = 60
_MAX_CONNECTIONS = 512
_STOP_TIMEOUT_S = 10


class _PromptH11Protocol(H11Protocol):
    """Closes a connection on which a request's headers take longer than ``HEADERS_TIMEOUT_S``."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of the headers, unless they are complete."""
        super().data_received(data)
        cycle: Any = self.cycle  # None until the first request's headers are complete
        if cycle is None or cycle.response_complete:
            self._wait()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEADERS_TIMEOUT_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def serve(settings: Settings, *, host: str, port: int, proxies: Sequence[str]) -> None:
    """Serve the console until SIGTERM or SIGINT.

    Args:
        settings: What the console is started with.
        host: Address to listen on.
        port: Port to listen on.
        proxies: Addresses and networks whose X-Forwarded-For and X-Forwarded-Proto count.

    Raises:
        ServerError: The address can't be listened on.
        ValueError: The server's address or key is wrong.
    """
    require_free({"--port": (host, port)})
    options: dict[str, Any] = {
        "http": _PromptH11Protocol,
        "lifespan": "on",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": bool(proxies),
        "forwarded_allow_ips": list(proxies),
        "timeout_keep_alive": _KEEP_ALIVE_S,
        "timeout_graceful_shutdown": _STOP_TIMEOUT_S,
        "limit_concurrency": _MAX_CONNECTIONS,
    }
    server = _Server(uvicorn.Config(create_app(settings), host=host, port=port, **options))
    server.address = base_url(host, port)
    server.run()


class _Server(uvicorn.Server):
    address = ""

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        if self.started:
            click.echo(f"console at {self.address}", err=True)
