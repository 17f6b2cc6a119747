"""The command ``inference-server``: export if needed, then serve."""

from __future__ import annotations

import socket
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from inference_client.version import __version__
from inference_export.__main__ import run_export
from inference_export.errors import RepositoryError
from inference_export.extras import MissingExtraError, refuse_two_onnxruntimes
from inference_export.inspection import read_export, what_changed
from inference_export.options import base_data_option, export_options, resources_option
from inference_export.provenance import ExportOptions

from .tritonserver import FORWARD_CLIENT_ID, LOOPBACK, ServerError, become, names_option, tritonserver_command

DEFAULT_RESOURCES = Path("/resources")
DEFAULT_BASE_DATA = Path("/data")
DEFAULT_PORT = 8080
METRICS_PORT = 8002
EXPORT_OPTIONS = {field.name for field in fields(ExportOptions)}
# Triton's options that this command has under its own names.
OWN_OPTIONS = {
    "--model-repository": "--model_repository",
    "--model-store": "--model_repository",
    "--http-address": "--host",
    "--http-port": "--port",
    "--metrics-port": "--metrics_port",
}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@resources_option(show_default=f"{DEFAULT_RESOURCES} if that exists; otherwise the repository is served as it is")
@base_data_option(show_default=f"{DEFAULT_BASE_DATA} if that exists")
@export_options
@click.option("--host", default=LOOPBACK, show_default=True, help="Address to listen on; 0.0.0.0 for every one.")
@click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True, help="HTTP port.")
@click.option(
    "--metrics_port",
    type=click.IntRange(1, 65535),
    default=METRICS_PORT,
    show_default=True,
    help=f"Port of the metrics, on {LOOPBACK}.",
)
@click.argument("triton_arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- TRITON_ARGUMENT...]")
@click.version_option(__version__)
@click.pass_context
def main(
    context: click.Context,
    /,
    host: str,
    port: int,
    metrics_port: int,
    triton_arguments: tuple[str, ...],
    **options: Any,
) -> None:
    """Serve trained resources: export them if needed, then run tritonserver.

    Exports when what lies in the model repository does not come from the same
    resources, base data and options, and says why. Without resources it serves
    what lies in the repository, as it is. gRPC is off.

    \b
    Examples:
      inference-server -r trained/ -data base/
      inference-server -r trained/ --host 0.0.0.0 --port 80
      inference-server --model_repository exported/ -- --log-verbose=1

    Exit status: tritonserver's; 1 if the export or the start failed, 2 wrong usage.
    """  # noqa: D301  (click wants the backspace itself)
    repository: Path = options["model_repository"]
    options["resources"] = options["resources"] or (DEFAULT_RESOURCES if DEFAULT_RESOURCES.is_dir() else None)
    if options["resources"] is None:
        _refuse_export_options(context)
    for option, ours in OWN_OPTIONS.items():
        if names_option(triton_arguments, option):
            raise click.UsageError(f"{option} after -- would contradict {ours}: give {ours} instead.")
    try:
        refuse_two_onnxruntimes()
        wanted, reason = _plan_export(options)
        command = tritonserver_command(
            _triton_arguments(repository, host, port, metrics_port, triton_arguments),
            extras=("server",) if reason is None else ("export", "server"),
        )
        for address in ((host, port), (LOOPBACK, metrics_port)):
            _require_free(*address)
        if wanted is not None and reason is not None:
            click.echo(f"exporting {wanted.resources}: {reason}", err=True)
            run_export(wanted)
        export = read_export(repository)
        if export is None:
            raise RepositoryError(f"{repository} holds no export. Name the trained resources with -r.", repository)
    except (ServerError, MissingExtraError, RepositoryError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"starting tritonserver on {repository}, version {export.version}, in {export.settings['mode']} mode; "
        f"it is ready at http://{host}:{port} when it says 'Started HTTPService'",
        err=True,
    )
    become(command)


def _plan_export(options: dict[str, Any]) -> tuple[ExportOptions | None, str | None]:
    """Say what to export, and why; without resources nothing is, and without a reason it lies there already."""
    if options["resources"] is None:
        return None, None
    base_data = options["base_data"] or (DEFAULT_BASE_DATA if DEFAULT_BASE_DATA.is_dir() else None)
    wanted = ExportOptions(**{**options, "base_data": base_data})
    return wanted, _reason_to_export(wanted.model_repository, wanted)


def _reason_to_export(repository: Path, wanted: ExportOptions) -> str | None:
    try:
        export = read_export(repository)
    except RepositoryError as error:
        return str(error)
    if export is None:
        return f"{repository} holds no export"
    changed = what_changed(export, wanted)
    return f"not the same {', '.join(changed)} as in {repository}" if changed else None


def _refuse_export_options(context: click.Context) -> None:
    for parameter in context.command.params:
        name = str(parameter.name)
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name in EXPORT_OPTIONS and name != "model_repository":
            raise click.UsageError(f"{parameter.opts[-1]} describes an export, and has no effect without -r.", context)


def _require_free(host: str, port: int) -> None:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ServerError(
            f"{host}:{port} can't be listened on ({error.strerror}). Is something running there? Choose another with "
            f"--host, --port or --metrics_port."
        ) from error


def _triton_arguments(
    repository: Path, host: str, port: int, metrics_port: int, arguments: tuple[str, ...]
) -> list[str]:
    option, pattern = FORWARD_CLIENT_ID
    defaults = {
        "--model-repository": str(repository),
        "--http-address": host,
        "--http-port": str(port),
        "--allow-grpc": "false",
        "--metrics-address": LOOPBACK,
        "--metrics-port": str(metrics_port),
        option: pattern,
    }
    return [*(f"{name}={value}" for name, value in defaults.items() if not names_option(arguments, name)), *arguments]


if __name__ == "__main__":
    main(prog_name="inference-server")
