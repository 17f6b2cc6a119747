"""Why the demonstration can't go on."""

from __future__ import annotations


class DemonstrationError(Exception):
    """The demonstration can't go on; the message says what was wrong, where, and what to do."""
