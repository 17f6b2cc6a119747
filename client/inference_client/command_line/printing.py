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
        raise standard_output_failed(error) from error


def standard_output_failed(error: OSError) -> click.ClickException:
    """Make the exception for standard output that can't be written, and write nothing more there."""
    # Otherwise Python would fail again at exit, when it flushes the rest of the buffer.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
    return click.ClickException(f"standard output can't be written: {error.strerror}.")
