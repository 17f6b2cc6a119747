"""Reads files that were sent as text: base64 in both alphabets, and data URLs."""

from __future__ import annotations

import base64
import binascii

WHITESPACE = b" \t\n\r\v\f"
DATA_URL = b"data:"
LONGEST_MEDIA_TYPE = 1024  # bytes before the comma of a data URL
_STANDARD = bytes.maketrans(b"-_", b"+/")  # the alphabet of URLs has these two characters instead
_ESCAPES = ((b"%3D", b"="), (b"%3d", b"="), (b"%2B", b"+"), (b"%2b", b"+"), (b"%2F", b"/"), (b"%2f", b"/"))


def decode(text: bytes) -> bytes | None:
    """Decode base64 text, of either alphabet, with or without line breaks and padding, or a data URL with such text.

    Returns:
        The file's bytes; None if this is no such text.

    >>> decode(b"aGk_"), decode(b"aGkhIQ"), decode(b"data:image/png;base64,aGkhIQ%3D%3D"), decode(b"data:,hi")
    (b'hi?', b'hi!!', b'hi!!', None)
    """
    if is_data_url(text):
        media_type, comma, text = text.partition(b",") if b"," in text[:LONGEST_MEDIA_TYPE] else (b"", b"", b"")
        if not comma or not media_type.rstrip().lower().endswith(b";base64"):
            return None
        if b"%" in text:
            for escape, character in _ESCAPES:
                text = text.replace(escape, character)
    text = text.translate(_STANDARD, WHITESPACE)
    if missing := -len(text) % 4:
        text += b"=" * missing
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def is_data_url(text: bytes) -> bool:
    """Tell whether a text is a data URL."""
    return text[: len(DATA_URL)].lower() == DATA_URL
