"""What ``inference-server`` itself says, among the log of its tritonserver."""

from __future__ import annotations

import click


def say(message: str) -> None:
    """Print a message of ``inference-server`` on stderr."""
    click.echo(f"inference-server: {message}", err=True)
