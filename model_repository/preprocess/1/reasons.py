"""Why an image has no answer: a code for metrics and the access log, and a text for the sender."""

from __future__ import annotations

UNDECODABLE = "empty", "unsupported", "broken", "too_large", "too_slow"
EMPTY, UNSUPPORTED, BROKEN, TOO_LARGE, TOO_SLOW = UNDECODABLE
NOT_FINITE = "not_finite"
OTHER = "other"  # for an ERROR that a caller of cluster_head has made up
CODES = (*UNDECODABLE, NOT_FINITE, OTHER)

_SEPARATOR = "\t"  # between code and text


class Reason(str):
    """The text of a reason, with the reason's code; empty for an image that has an answer (``NONE``).

    Args:
        code: One of ``CODES``; "" for ``NONE``.
        text: Text for the image's sender, without paths and memory addresses.

    Attributes:
        code: One of ``CODES``; "" for ``NONE``.

    >>> reason = Reason(EMPTY, "empty: 0 bytes")
    >>> reason, reason.code, Reason.unpack(reason.pack()).code
    ('empty: 0 bytes', 'empty', 'empty')
    """

    code: str

    def __new__(cls, code: str, text: str) -> Reason:  # noqa: D102  (the class's docstring has the arguments)
        reason = super().__new__(cls, text)
        reason.code = code
        return reason

    def pack(self) -> str:
        """Join code and text for another process; "" for ``NONE``."""
        return f"{self.code}{_SEPARATOR}{self}" if self else ""

    @classmethod
    def unpack(cls, packed: str) -> Reason:
        """Read a packed reason; any other text becomes a reason with the code ``OTHER``."""
        if not packed:
            return NONE
        code, separator, text = packed.partition(_SEPARATOR)
        return cls(code, text) if separator and code in CODES else cls(OTHER, packed)


NONE = Reason("", "")
