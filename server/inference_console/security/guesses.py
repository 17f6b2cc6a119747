"""Limits how often an address may send a wrong token."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict, deque

MAX_GUESSES = 10
WINDOW_S = 60.0
_MAX_ADDRESSES = 10_000
_IPV6_NETWORK_BITS = 64  # one sender has as many addresses as it likes in such a network


class Guesses:
    """Counts the wrong tokens of each address within the last ``WINDOW_S`` seconds."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, address: str) -> int:
        """Return for how many seconds the address may send no token, 0 if it may now."""
        times = self._recent(_network(address))
        if times is None or len(times) < MAX_GUESSES:
            return 0
        return max(1, round(times[0] + WINDOW_S - time.monotonic()))

    def count(self, address: str) -> None:
        """Count a wrong token."""
        network = _network(address)
        times = self._wrong.setdefault(network, deque(maxlen=MAX_GUESSES))
        times.append(time.monotonic())
        self._wrong.move_to_end(network)
        while len(self._wrong) > _MAX_ADDRESSES:
            self._wrong.popitem(last=False)

    def _recent(self, network: str) -> deque[float] | None:
        times = self._wrong.get(network)
        while times and times[0] + WINDOW_S < time.monotonic():
            times.popleft()
        return times


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:  # noqa: PLR2004 - IPv4
        return address
    return str(ipaddress.ip_network((parsed, _IPV6_NETWORK_BITS), strict=False))
