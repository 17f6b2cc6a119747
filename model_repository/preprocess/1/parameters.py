"""What a request may say beside its tensors; the same file in ``preprocess`` and in ``cluster_head``."""

from __future__ import annotations

import json
import math
from typing import Any

CLIENT_ID_PARAMETER = "x-client-id"
LONGEST_CLIENT_ID = 64
UNKNOWN_CLIENT, UNUSABLE_CLIENT, OTHER_CLIENTS = RESERVED = "unknown", "unusable", "other"
# Who sends what says nothing of the other images: the same one again and again, and those of a known class.
NOT_TRAFFIC = ("health-check", "evaluation")
MOST_CLIENTS = 100  # told apart; whoever chooses ids can't fill the memory of those who count them


def read_threshold(parameters: str) -> float | None:
    """Read the threshold that a request names, so that one is refused whose threshold no scoring could use.

    Args:
        parameters: The request's parameters as Triton hands them over, a JSON object or "".

    Returns:
        The threshold, -1 to 1; None for a request that names none.

    Raises:
        ValueError: ``sim_thres`` is no number or text of a number, not finite, or not within -1 to 1.
    """
    values = json.loads(parameters or "{}")
    if "sim_thres" not in values:
        return None
    value = values["sim_thres"]
    try:
        threshold = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        threshold = math.nan
    if not -1 <= threshold <= 1:
        raise ValueError(f"sim_thres is {value!r}, and must be a number from -1 to 1")
    return threshold


def client_id(parameters: str) -> str:
    """Read who sent a request: the header X-Client-Id, which Triton forwards as a parameter.

    A body may hold a parameter of that name too, in any case. Forwarded headers come after it, so the last one counts.

    Args:
        parameters: The request's parameters as Triton hands them over, a JSON object or "".

    Returns:
        The id; ``unknown`` without one, ``unusable`` for one that is no printable ASCII text, too long, or one of
        these words.

    >>> client_id('{"x-client-id": "forged", "X-Client-Id": "ward 7"}')
    'ward 7'
    """
    # As pairs: of two that are spelt alike, a dict would keep the first one's place.
    pairs: list[tuple[str, Any]] = json.loads(parameters or "{}", object_pairs_hook=list)
    ids = [value for name, value in pairs if name.lower() == CLIENT_ID_PARAMETER]
    if not ids:
        return UNKNOWN_CLIENT
    text = str(ids[-1]).strip()
    usable = text.isascii() and text.isprintable() and 0 < len(text) <= LONGEST_CLIENT_ID and text not in RESERVED
    return text if usable else UNUSABLE_CLIENT


def request_id(request: Any) -> str:
    """Read the id that a request's sender gave it: "" without one, or where it is no text."""
    try:
        return str(request.request_id())
    except UnicodeDecodeError:
        return ""


class KnownClients:
    """The clients that are told apart: the first ``MOST_CLIENTS`` that came."""

    def __init__(self) -> None:
        self._ids = {UNKNOWN_CLIENT, UNUSABLE_CLIENT}

    def label(self, client: str) -> str:
        """Give the name under which a client is counted: its own, or ``other``."""
        if client not in self._ids and len(self._ids) >= MOST_CLIENTS:
            return OTHER_CLIENTS
        self._ids.add(client)
        return client
