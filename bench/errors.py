"""Why a benchmark can't go on."""

from __future__ import annotations


class BenchError(Exception):
    """The benchmark can't go on; the message says what was wrong, where, and what to do."""
