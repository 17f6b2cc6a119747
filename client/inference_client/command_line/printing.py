"""Printing results on standard output, which may be a file on a full disk."""

from __future__ import annotations

import errno
import os
import sys

import click


def print_result(text: str) -> None:
    """Print a command's result.

    Raises:
        click.ClickException: Standard output can't be written.
    """
    try:
        click.echo(text)
    except OSError as error:
        if error.errno == errno.EPIPE:  # click ends the program quietly
            raise
        # Otherwise Python would fail again at exit, when it flushes the rest of the buffer.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
        raise click.ClickException(f"standard output can't be written: {error.strerror}.") from error
