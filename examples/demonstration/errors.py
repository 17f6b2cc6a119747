"""The error that stops the demonstration."""

from __future__ import annotations


class DemonstrationError(Exception):
    """The demonstration cannot continue; the message says what was found, what was expected, and what to do."""
