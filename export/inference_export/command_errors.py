"""Errors and signals of a command that writes into a model repository, as a person at a shell expects them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import click

from inference_export.errors import ExportError, Terminated
from inference_export.full_disk import REASONS
from inference_export.repository.staging import STAGING

TERMINATED_EXIT_CODE = 128 + signal.SIGTERM


@contextlib.contextmanager
def explained_errors(repository: Path) -> Iterator[None]:
    """End the command with a message and exit code 1 if the context raises; on SIGTERM, unwind and end.

    Args:
        repository: The model repository that the command writes into, as the user names it.

    Raises:
        click.ClickException: The context raised an ``ExportError`` or ``OSError``.
    """
    signal.signal(signal.SIGTERM, _terminate)  # so that the staging folder is removed
    try:
        yield
    except ExportError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        where = error.filename2 or error.filename or repository  # of a copy or a move, the second is the target
        if STAGING in str(where):  # a folder that the user does not know
            where = repository
        if error.errno in REASONS:
            raise click.ClickException(
                f"{where} can't be written: {REASONS[error.errno]}, or name another --model_repository. Nothing was "
                f"replaced."
            ) from error
        remedy = f" Run the command as the user who owns {repository}." if isinstance(error, PermissionError) else ""
        raise click.ClickException(f"{where}: {error.strerror or error}. Nothing was replaced.{remedy}") from error


def _terminate(*_: object) -> None:
    raise Terminated(TERMINATED_EXIT_CODE)
