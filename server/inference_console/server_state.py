"""What the inference server says of itself, asked with a small image."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from inference_client import AsyncClassify
from inference_server.supervision.checking import HEALTH_CHECK

TIMEOUT_S = 5.0
_KEPT_S = 1.0  # an answer serves whoever asks within this time
_SIDE = 8  # pixels


@dataclass(frozen=True, kw_only=True)
class ServerState:
    """What the server answered.

    Attributes:
        status: The status code that the client gave; 200: the server classifies.
        message: Why it does not, in words; "" if it does.
        version: The version that answered; None: nothing did.
        threshold: The threshold of that version; None: nothing answered, or the mode is classification.
        classes: The names of the classes.
    """

    status: int
    message: str = ""
    version: int | None = None
    threshold: float | None = None
    classes: list[str] = field(default_factory=list)

    @property
    def mode(self) -> str | None:
        """``clustering`` or ``classification``; None: nothing answered."""
        if self.version is None:
            return None
        return "classification" if self.threshold is None else "clustering"


class ServerProbe:
    """Asks a server to classify a small image.

    Args:
        url: The server: ``http://host:port``.
        api_key: Its key, if it asks for one.
    """

    def __init__(self, url: str, api_key: str | None) -> None:
        self._classifier = AsyncClassify(
            url, timeout_s=TIMEOUT_S, connect_timeout_s=TIMEOUT_S, details=True, client_id=HEALTH_CHECK, api_key=api_key
        )
        self._lock = asyncio.Lock()
        self._state: ServerState | None = None
        self._asked_s = 0.0

    async def ask(self) -> ServerState:
        """Return what the server answers, or answered within the last second."""
        async with self._lock:
            if self._state is None or time.monotonic() - self._asked_s > _KEPT_S:
                self._state = _read(*await self._classifier(Image.new("L", (_SIDE, _SIDE), 128)))
                self._asked_s = time.monotonic()
            return self._state

    async def close(self) -> None:
        """End the connections."""
        await self._classifier.close()


def _read(results: list[dict[str, Any]] | dict[str, str], status: int) -> ServerState:
    if isinstance(results, dict):
        return ServerState(status=status, message=results["error"])
    (entry,) = results
    if "Error" in entry:
        return ServerState(status=status, message=entry["Error"])
    return ServerState(
        status=status, version=entry["Version"], threshold=entry["Threshold"], classes=list(entry["Scores"])
    )
