"""The command ``inference-console``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from inference_client.command_line.extras import MissingExtraError, require_extras
from inference_client.command_line.options import COMMAND_SETTINGS
from inference_client.version import __version__
from inference_export.base_set.embedding_cache import default_cache_folder

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


@click.command(context_settings=COMMAND_SETTINGS)
@click.option(
    "-ip",
    "--server_ip",
    "server_url",
    metavar="URL",
    default="http://127.0.0.1:8080",
    help="The inference server: http://host:port.",
)
@click.option(
    "-data",
    "--base_data",
    type=_FOLDER,
    help="The base data: a folder for each class, with its reference images inside. Without it, the console shows no "
    "reference images and changes none.",
)
@click.option(
    "--model_repository",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("model_repository"),
    help="The model repository that the server serves. Where there is none, the console classifies only.",
)
@click.option(
    "--queries",
    type=_FOLDER,
    help="Images whose answers are compared before a change: a folder of images, or a folder of images for each class.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=default_cache_folder,
    show_default="classify-triton in your cache folder",
    help="Folder that keeps computed embeddings.",
)
@click.option("--host", default="127.0.0.1", help="Address to listen on. Any but loopback needs --token_file.")
@click.option("--port", type=click.IntRange(1, 65535), default=8090, help="Port to listen on.")
@click.option("--read_only", is_flag=True, help="Let nobody change the base set.")
@click.option(
    "--token_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of who may use the console: on each line NAME ROLE TOKEN. ROLE is classify, or change for those who may "
    "change the base set too. A token has at least 32 characters.",
)
@click.option(
    "--host_name",
    "host_names",
    multiple=True,
    metavar="NAME",
    help="Name under which browsers reach the console, besides its IP addresses and localhost. May be repeated.",
)
@click.option(
    "--proxy",
    "proxies",
    multiple=True,
    metavar="ADDRESS",
    help="Address or network of a gateway in front of the console, whose X-Forwarded-For and X-Forwarded-Proto count. "
    "May be repeated.",
)
@click.option(
    "--api_key",
    metavar="TEXT",
    envvar="CLASSIFY_API_KEY",
    show_envvar=True,
    help="The server's API key. Prefer the variable: other users of this computer can read an argument.",
)
@click.version_option(__version__)
def main(*, host: str, port: int, token_file: Path | None, proxies: tuple[str, ...], **options: Any) -> None:
    """Serve pages and a REST API for people, in front of an inference server.

    People try images, see which reference images an answer rests on, and correct
    the base set, after a look at the consequences. The pages work without the
    internet. Programs find the API described at /docs and /openapi.json; POST /
    speaks the protocol of the original server.

    Listens on this machine only, and asks for no login there. On any other
    address, --token_file says who may do what.

    \b
    Examples:
      inference-console -data base/
      inference-console -data base/ --queries queries/ --read_only
      inference-console -data base/ --host 0.0.0.0 --token_file tokens --host_name classify.example.org

    Exit status: 0 after SIGTERM or Ctrl-C; 1 if it can't start; 2 wrong usage.
    """  # noqa: D301  (click wants the backspace itself)
    if host not in LOOPBACK_HOSTS and token_file is None:
        raise click.UsageError(
            f"--host {host} lets others reach the console, so it needs --token_file. Give one, or leave --host out."
        )
    try:
        require_extras("server", "console")
    except MissingExtraError as error:
        raise click.ClickException(str(error)) from error
    # Imported here: what the extras install.
    from inference_console.security.tokens import TokenFileError, read_token_file
    from inference_console.serving import serve
    from inference_console.settings import Settings
    from inference_server.errors import ServerError

    try:
        users = None if token_file is None else read_token_file(token_file)
        serve(Settings(users=users, **options), host=host, port=port, proxies=proxies)
    except ValueError as error:  # the server's address or key
        raise click.UsageError(str(error)) from error
    except (TokenFileError, ServerError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main(prog_name="inference-console")
