"""The command ``inference-server``: export if needed, then serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from inference_client.version import __version__
from inference_export.__main__ import run_export
from inference_export.errors import RepositoryError
from inference_export.extras import MissingExtraError, refuse_two_onnxruntimes
from inference_export.inspection import Export, read_export, what_changed
from inference_export.options import base_data_option, export_options, resources_option
from inference_export.provenance import ExportOptions

from .tritonserver import FORWARD_CLIENT_ID, LOOPBACK, ServerError, become, names_option, tritonserver_command

DEFAULT_RESOURCES = Path("/resources")
DEFAULT_BASE_DATA = Path("/data")
DEFAULT_PORT = 8080
METRICS_PORT = 8002


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@resources_option(show_default=f"{DEFAULT_RESOURCES} if that exists; otherwise the repository is served as it is")
@base_data_option(show_default=f"{DEFAULT_BASE_DATA} if that exists")
@export_options
@click.option("--host", default=LOOPBACK, show_default=True, help="Address to listen on; 0.0.0.0 for every one.")
@click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, show_default=True, help="HTTP port.")
@click.argument("triton_arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- TRITON_ARGUMENT...]")
@click.version_option(__version__)
def main(host: str, port: int, triton_arguments: tuple[str, ...], **options: Any) -> None:
    r"""Serve trained resources: export them if needed, then run tritonserver.

    Exports when what lies in the model repository does not come from the same
    resources, base data and options, and says why. Metrics are on port 8002 of
    this machine; gRPC is off.

    \b
    Examples:
      inference-server -r trained/ -data base/
      inference-server -r trained/ --host 0.0.0.0 --port 80
      inference-server --model_repository exported/ -- --log-verbose=1

    Exit status: tritonserver's; 1 if the export or the start failed, 2 wrong usage.
    """
    repository: Path = options["model_repository"]
    try:
        refuse_two_onnxruntimes()
        command = tritonserver_command(_triton_arguments(repository, host, port, triton_arguments))
        export = _ensure_export(options)
    except (ServerError, MissingExtraError, RepositoryError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"serving {repository}, version {export.version}, in {export.settings['mode']} mode, on http://{host}:{port}",
        err=True,
    )
    become(command)


def _ensure_export(options: dict[str, Any]) -> Export:
    repository: Path = options["model_repository"]
    resources = options["resources"] or (DEFAULT_RESOURCES if DEFAULT_RESOURCES.is_dir() else None)
    base_data = options["base_data"] or (DEFAULT_BASE_DATA if DEFAULT_BASE_DATA.is_dir() else None)
    if resources is None:
        export = read_export(repository)
        if export is None:
            raise RepositoryError(f"{repository} holds no export. Name the trained resources with -r.", repository)
        return export
    wanted = ExportOptions(**{**options, "resources": resources, "base_data": base_data})
    reason = _reason_to_export(repository, wanted)
    if reason is not None:
        click.echo(f"exporting {resources}: {reason}", err=True)
        run_export(wanted)
    export = read_export(repository)
    if export is None:
        raise RepositoryError(f"{repository} was changed by somebody else during the export. Start again.", repository)
    return export


def _reason_to_export(repository: Path, wanted: ExportOptions) -> str | None:
    try:
        export = read_export(repository)
    except RepositoryError as error:
        return str(error)
    if export is None:
        return f"{repository} holds no export"
    changed = what_changed(export, wanted)
    return f"not the same {', '.join(changed)} as in {repository}" if changed else None


def _triton_arguments(repository: Path, host: str, port: int, arguments: tuple[str, ...]) -> list[str]:
    option, pattern = FORWARD_CLIENT_ID
    defaults = {
        "--model-repository": str(repository),
        "--http-address": host,
        "--http-port": str(port),
        "--allow-grpc": "false",
        "--metrics-address": LOOPBACK,
        "--metrics-port": str(METRICS_PORT),
        option: pattern,
    }
    return [*(f"{name}={value}" for name, value in defaults.items() if not names_option(arguments, name)), *arguments]


if __name__ == "__main__":
    main(prog_name="inference-server")
