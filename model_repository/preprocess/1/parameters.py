"""The parameters and headers of a request."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any, NamedTuple

CLIENT_ID_PARAMETER = "x-client-id"
THRESHOLD_PARAMETER = "sim_thres"
LONGEST_CLIENT_ID = 64
UNKNOWN_CLIENT, UNUSABLE_CLIENT, OTHER_CLIENTS = RESERVED = "unknown", "unusable", "other"
# Clients left out of the similarity metrics: checks always send the same image, evaluations send known ones.
NOT_TRAFFIC = ("health-check", "evaluation")
MOST_CLIENTS = 100  # counted separately, so that made-up ids can't fill the memory

MOST_KEPT, LONGEST_KEPT = 256, 256  # parameters that are remembered, since most requests bring the same; characters

BAD_THRESHOLD, NOT_TEXT = INVALID = "threshold", "not_text"


class Given(NamedTuple):
    """The request names a threshold, -1 to 1."""

    value: float


class NotGiven(NamedTuple):
    """The request names no threshold, so the exported one is in force."""


class Invalid(NamedTuple):
    """The request must be refused.

    Attributes:
        code: Reason for metrics and the access log.
        message: Text for the sender.
    """

    code: str
    message: str


Threshold = Given | NotGiven | Invalid


class Parameters(NamedTuple):
    """The parameters of a request.

    Attributes:
        client: Id of the sender; ``unknown`` without an id, ``unusable`` for an id that is not printable ASCII, is
            longer than ``LONGEST_CLIENT_ID`` characters, or is one of ``RESERVED``.
        request_id: The sender's id for the request; "" for none, or for one that is not UTF-8.
        threshold: The request's threshold.
    """

    client: str
    request_id: str
    threshold: Threshold


def read_parameters(request: Any) -> Parameters:
    """Read a request's parameters.

    Args:
        request: Triton's request.
    """
    try:
        request_id = str(request.request_id())
    except UnicodeDecodeError:
        request_id = ""
    try:
        text = request.parameters() or "{}"
    except UnicodeDecodeError:
        message = "a request parameter, or the header X-Client-Id, is not UTF-8 text"
        return Parameters(UNUSABLE_CLIENT, request_id, Invalid(NOT_TEXT, message))
    client, threshold = (_parse_again if len(text) <= LONGEST_KEPT else _parse)(text)
    return Parameters(client, request_id, threshold)


def _parse(text: str) -> tuple[str, Threshold]:
    # Pairs keep their order even if two names are equal; a dict would keep the place of the first.
    pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    return _client(pairs), _threshold(dict(pairs))


_parse_again = lru_cache(MOST_KEPT)(_parse)


def _threshold(values: dict[str, Any]) -> Threshold:
    if THRESHOLD_PARAMETER not in values:
        return NotGiven()
    value = values[THRESHOLD_PARAMETER]
    try:
        threshold = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        threshold = math.nan
    if not -1 <= threshold <= 1:
        return Invalid(BAD_THRESHOLD, f"{THRESHOLD_PARAMETER} is {value!r}; it must be a number from -1 to 1")
    return Given(threshold)


def _client(pairs: list[tuple[str, Any]]) -> str:
    """Read the header X-Client-Id, which Triton forwards as a parameter.

    A body may hold a parameter of that name too, in any case. Forwarded headers come later, so the last value counts.
    """
    ids = [value for name, value in pairs if name.lower() == CLIENT_ID_PARAMETER]
    if not ids:
        return UNKNOWN_CLIENT
    client = str(ids[-1]).strip()
    is_usable = client.isascii() and client.isprintable() and 0 < len(client) <= LONGEST_CLIENT_ID
    return client if is_usable and client not in RESERVED else UNUSABLE_CLIENT


class KnownClients:
    """The clients that metrics count separately: the first ``MOST_CLIENTS``."""

    def __init__(self) -> None:
        self._ids = {UNKNOWN_CLIENT, UNUSABLE_CLIENT}

    def label(self, client: str) -> str:
        """Return the name under which a client is counted: its own, or ``other``."""
        if client not in self._ids and len(self._ids) >= MOST_CLIENTS:
            return OTHER_CLIENTS
        self._ids.add(client)
        return client
