"""Why an image has no answer: a code for metrics and the access log, a text for whoever sent it."""

from __future__ import annotations

EMPTY, UNSUPPORTED, BROKEN, TOO_LARGE, TOO_SLOW = UNDECODABLE = "empty", "unsupported", "broken", "too_large", "too_slow"
NOT_FINITE = "not_finite"
OTHER = "other"  # only where a caller of cluster_head makes up an ERROR of its own
CODES = (*UNDECODABLE, NOT_FINITE, OTHER)

_SEPARATOR = "\t"  # between code and text


class Reason(str):
    """The text of a reason, fit for strangers (no path, no memory address), with the reason's code.

    Args:
        code: One of ``CODES``.
        text: What the sender of the image reads.

    Attributes:
        code: One of ``CODES``.

    >>> reason = Reason(EMPTY, "empty: 0 bytes")
    >>> reason, reason.code, Reason.unpack(reason.pack()).code
    ('empty: 0 bytes', 'empty', 'empty')
    """

    code: str

    def __new__(cls, code: str, text: str) -> Reason:
        reason = super().__new__(cls, text)
        reason.code = code
        return reason

    def pack(self) -> str:
        """Write code and text, as one process tells them to the next."""
        return f"{self.code}{_SEPARATOR}{self}"

    @classmethod
    def unpack(cls, packed: str) -> Reason:
        """Read what ``pack`` wrote; any other text is a reason with the code ``OTHER``."""
        code, separator, text = packed.partition(_SEPARATOR)
        return cls(code, text) if separator and code in CODES else cls(OTHER, packed)
