"""The command ``reload-repository``."""

from __future__ import annotations

import time

import click

from inference_client.command_line.extras import MissingExtraError, require_extras
from inference_client.command_line.options import COMMAND_SETTINGS
from inference_client.version import __version__
from inference_export.errors import RepositoryError
from inference_server.errors import ServerError
from inference_server.options import port_option
from inference_server.reload.reloading import reload_repository


@click.command(context_settings=COMMAND_SETTINGS)
@port_option(help="HTTP port of the inference-server to change.")
@click.option("--rollback", is_flag=True, help="Go back to the version before the served one.")
@click.version_option(__version__)
def main(port: int, rollback: bool) -> None:
    """Have a running inference-server answer with the newest export.

    No request fails, and each answer comes entirely from the old or the new
    version. If the new version can't be loaded, the server keeps the old one.
    Another image size, number of classes, batch limit or device needs a
    restart; the command then says so and changes nothing.

    \b
    Examples:
      export-repository -r trained/ -data more/ && reload-repository
      reload-repository --rollback

    Exit status: 0 changed, or nothing to change; 1 refused, and the old version stays; 2 wrong usage.
    """  # noqa: D301  (click wants the backspace itself)
    began_s = time.monotonic()
    try:
        require_extras("server")
        change = reload_repository(port, rollback=rollback)
    except (ServerError, RepositoryError, MissingExtraError) as error:
        raise click.ClickException(str(error)) from error
    if change.before == change.after:
        click.echo(f"version {change.after} is served already")
    else:
        seconds = time.monotonic() - began_s
        click.echo(f"version {change.after} is served, in place of {change.before}; it took {seconds:.1f} s")
    if change.modes:
        click.echo(change.modes)


if __name__ == "__main__":
    main(prog_name="reload-repository")
