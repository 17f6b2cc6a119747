"""The error of a preprocessing that the server can't do."""

from __future__ import annotations


class UnsupportedError(Exception):
    """The server can't do what a description asks for. The message is the end of a sentence about the description."""
