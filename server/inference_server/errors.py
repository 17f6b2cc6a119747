"""The error that every command of this package reports."""

from __future__ import annotations


class ServerError(RuntimeError):
    """A server can't be started, reached or changed; the message says what to do."""
