"""Exports and serves the demonstration with the commands that users have."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from examples.demonstration.errors import DemonstrationError
from examples.demonstration.layout import Layout
from examples.demonstration.settings import TrainingSettings
from inference_server.errors import ServerError
from inference_server.triton.process import running_server


def export_command(layout: Layout, mode: str) -> list[str]:
    """Build the command with which a user would export the demonstration.

    Args:
        layout: Where the files are.
        mode: One of ``MODES``; clustering gets the base images.

    Returns:
        This environment's ``export-repository`` and its arguments.
    """
    base_data = ["-data", str(layout.part("base"))] if mode == "clustering" else []
    return [
        str(Path(sys.executable).with_name("export-repository")),
        "-r", str(layout.resources), *base_data,
        "--image_size", str(TrainingSettings().image_size),
        "--model_repository", str(layout.repository(mode)),
    ]  # fmt: skip


def export_demonstration(layout: Layout, mode: str) -> None:
    """Export the trained resources in a mode of ``MODES``; the output of the export goes to stderr.

    Raises:
        DemonstrationError: ``export-repository`` is not installed, or failed.
    """
    command = export_command(layout, mode)
    click.echo(f"$ {shlex.join(command)}", err=True)
    try:
        subprocess.run(command, check=True, stdout=sys.stderr)
    except FileNotFoundError as error:
        raise DemonstrationError(
            f"{command[0]} is missing. Install this checkout with the extras export and server:\n"
            f"  {sys.executable} -m pip install -e '.[export,server]'"
        ) from error
    except subprocess.CalledProcessError as error:
        raise DemonstrationError(f"export-repository failed with code {error.returncode}; see above.") from error


@contextmanager
def serve_demonstration(layout: Layout, mode: str) -> Iterator[str]:
    """Run tritonserver on the repository of a mode until the context ends.

    Yields:
        ``http://host:port``.

    Raises:
        DemonstrationError: The server did not start.
    """
    try:
        with running_server(layout.repository(mode), log=layout.log(mode)) as server:
            click.echo(f"tritonserver is ready at {server.url}; its log is {layout.log(mode)}", err=True)
            yield server.url
    except ServerError as error:
        raise DemonstrationError(str(error)) from error
    click.echo("tritonserver has stopped", err=True)
