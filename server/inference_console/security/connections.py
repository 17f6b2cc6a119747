"""How long a connection may keep the console waiting, and how many there may be."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 512
HEADERS_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0


class PromptProtocol(H11Protocol):
    """Closes connections on which nothing happens.

    A request's headers may take ``HEADERS_TIMEOUT_S``, and a client that reads no more of its answer may wait
    ``READ_TIMEOUT_S``. Where there are too many connections, a new one closes the one that has been idle longest: idle
    connections, however many somebody opens, lock nobody out.
    """

    _idle: ClassVar[OrderedDict[PromptProtocol, None]] = OrderedDict()  # longest idle first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._headers_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None
        if len(self.connections) >= MAX_CONNECTIONS and self._idle:
            longest_idle, _ = self._idle.popitem(last=False)
            longest_idle.transport.close()
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of the headers, unless they are complete."""
        super().data_received(data)
        cycle: Any = self.cycle  # None until the first request's headers are complete
        if cycle is None or cycle.response_complete:
            self._wait()
        else:
            self._idle.pop(self, None)
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._idle[self] = None
            if self.conn.their_state is h11.SEND_BODY:
                self._wait()  # for the rest of a body that was refused

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        # abort: close would wait for the client to read what has been written
        self._read_timer = self.loop.call_later(READ_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """Wait no longer: the client reads."""
        super().resume_writing()
        self._stop_waiting_for_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._idle.pop(self, None)
        self._stop_waiting()
        self._stop_waiting_for_reader()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._idle.setdefault(self, None)
        if self._headers_timer is None:
            self._headers_timer = self.loop.call_later(HEADERS_TIMEOUT_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._headers_timer is not None:
            self._headers_timer.cancel()
            self._headers_timer = None

    def _stop_waiting_for_reader(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
