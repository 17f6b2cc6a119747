"""What a request says beside its tensors."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

CLIENT_ID_PARAMETER = "x-client-id"
THRESHOLD_PARAMETER = "sim_thres"
LONGEST_CLIENT_ID = 64
UNKNOWN_CLIENT, UNUSABLE_CLIENT, OTHER_CLIENTS = RESERVED = "unknown", "unusable", "other"
# Clients whose images say nothing about the other images: always the same image, or images of known classes.
NOT_TRAFFIC = ("health-check", "evaluation")
MOST_CLIENTS = 100  # told apart, so that senders who make up ids can't fill the memory of those who count them

BAD_THRESHOLD, NOT_TEXT = INVALID = "threshold", "not_text"


class Given(NamedTuple):
    """The request names a threshold, -1 to 1."""

    value: float


class NotGiven(NamedTuple):
    """The request names no threshold: the exported one is in force."""


class Invalid(NamedTuple):
    """The request has to be refused.

    Attributes:
        code: One of ``INVALID``, for metrics and the access log.
        message: What the sender reads.
    """

    code: str
    message: str


Threshold = Given | NotGiven | Invalid


class Parameters(NamedTuple):
    """What a request says beside its tensors.

    Attributes:
        client: Who sent the request; ``unknown`` without an id, ``unusable`` for one that is no printable ASCII text,
            longer than ``LONGEST_CLIENT_ID`` characters, or one of ``RESERVED``.
        request_id: The id that the sender gave the request; "" for none, or for one that is no text.
        threshold: The threshold that the request names.
    """

    client: str
    request_id: str
    threshold: Threshold


def read_parameters(request: Any) -> Parameters:
    """Read a request's parameters.

    Args:
        request: The request as Triton hands it over.
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
    # As pairs: of two that are spelt alike, a dict would keep the first one's place.
    pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    return Parameters(_client(pairs), request_id, _threshold(dict(pairs)))


def _threshold(values: dict[str, Any]) -> Threshold:
    if THRESHOLD_PARAMETER not in values:
        return NotGiven()
    value = values[THRESHOLD_PARAMETER]
    try:
        threshold = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        threshold = math.nan
    if not -1 <= threshold <= 1:
        return Invalid(BAD_THRESHOLD, f"{THRESHOLD_PARAMETER} is {value!r}, and must be a number from -1 to 1")
    return Given(threshold)


def _client(pairs: list[tuple[str, Any]]) -> str:
    """Read the header X-Client-Id, which Triton forwards as a parameter.

    A body may hold a parameter of that name too, in any case. Forwarded headers come after it, so the last one counts.
    """
    ids = [value for name, value in pairs if name.lower() == CLIENT_ID_PARAMETER]
    if not ids:
        return UNKNOWN_CLIENT
    client = str(ids[-1]).strip()
    is_usable = client.isascii() and client.isprintable() and 0 < len(client) <= LONGEST_CLIENT_ID
    return client if is_usable and client not in RESERVED else UNUSABLE_CLIENT


class KnownClients:
    """The clients that metrics tell apart: the first ``MOST_CLIENTS`` that came."""

    def __init__(self) -> None:
        self._ids = {UNKNOWN_CLIENT, UNUSABLE_CLIENT}

    def label(self, client: str) -> str:
        """Give the name under which a client is counted: its own, or ``other``."""
        if client not in self._ids and len(self._ids) >= MOST_CLIENTS:
            return OTHER_CLIENTS
        self._ids.add(client)
        return client
