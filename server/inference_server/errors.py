"""The error that all commands of this package report."""

from __future__ import annotations


class ServerError(RuntimeError):
    """A server can't be started, reached or changed; the message says what to do."""
