"""The error that stops a benchmark."""

from __future__ import annotations


class BenchError(Exception):
    """The benchmark cannot continue; the message says what was found, what was expected, and what to do."""
