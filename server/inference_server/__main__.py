"""The command ``inference-server``: export if needed, then serve."""

from __future__ import annotations

import socket
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from inference_client.command_line.extras import MissingExtraError, refuse_two_onnxruntimes
from inference_client.version import __version__
from inference_export.base_set.base_folder import holds_anything
from inference_export.command import run_export
from inference_export.command_options import base_data_option, export_options, resources_option
from inference_export.errors import ExportError, RepositoryError
from inference_export.export_options import ExportOptions
from inference_export.repository.configs import ENSEMBLE, MODELS
from inference_export.repository.reading import read_export, what_changed
from inference_server.options import port_option
from inference_server.supervision.checking import TIMEOUT_S, check
from inference_server.supervision.watching import Watcher
from inference_server.triton.administration import Access
from inference_server.triton.standard_streams import open_standard_streams
from inference_server.triton.tritonserver import (
    FORWARD_CLIENT_ID,
    LOOPBACK,
    Command,
    ServerError,
    body_limit,
    names_option,
    raise_open_files_limit,
    raise_stack_limit,
    tritonserver_command,
)

DEFAULT_RESOURCES = Path("/resources")
DEFAULT_BASE_DATA = Path("/data")
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
# What this command needs for watching over the server, and for reload-repository.
RESERVED_OPTIONS = (
    "--model-control-mode", "--load-model", "--allow-grpc", "--grpc-port", "--grpc-address",
    "--grpc-restricted-protocol",
)  # fmt: skip


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@resources_option(show_default=f"{DEFAULT_RESOURCES} if that exists; otherwise the repository is served as it is")
@base_data_option(show_default=f"{DEFAULT_BASE_DATA} unless that is absent or empty")
@export_options
@click.option("--host", default=LOOPBACK, show_default=True, help="Address to listen on; 0.0.0.0 for every one.")
@port_option(help="HTTP port.")
@click.option(
    "--metrics_port",
    type=click.IntRange(1, 65535),
    default=METRICS_PORT,
    show_default=True,
    help=f"Port of the metrics, on {LOOPBACK}.",
)
@click.option(
    "--check",
    "only_check",
    is_flag=True,
    help="Start nothing: have the server at --host and --port classify a small image, and exit with 0 if it did within "
    "--check_timeout. For load balancers, health checks and probes.",
)
@click.option(
    "--check_timeout",
    type=click.IntRange(1, 600),
    default=round(TIMEOUT_S),
    show_default=True,
    help="Seconds that --check takes at most. A server that is too busy (503) is asked again until then; give 30 "
    "where a busy server must not be taken for a broken one.",
)
@click.argument("triton_arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- TRITON_ARGUMENT...]")
@click.version_option(__version__)
@click.pass_context
def main(
    context: click.Context,
    /,
    *,
    host: str,
    port: int,
    metrics_port: int,
    only_check: bool,
    check_timeout: int,
    triton_arguments: tuple[str, ...],
    **options: Any,
) -> None:
    """Serve trained resources: export them if needed, then run tritonserver.

    Exports when what lies in the model repository does not come from the same
    resources, base data and options, and says why. Without resources it serves
    what lies in the repository, as it is.

    Watches over the server: a process of a model that has died or hangs is
    replaced within seconds, and tritonserver itself restarted. gRPC is for
    reload-repository alone.

    \b
    Examples:
      inference-server -r trained/ -data base/
      inference-server -r trained/ --host 0.0.0.0 --port 80
      inference-server --model_repository exported/ -- --log-verbose=1
      inference-server --check

    Exit status: 0 after SIGTERM or Ctrl-C; 1 if the export, the start or the check failed, 2 wrong usage, 3 if a
    process failed again and again.
    """  # noqa: D301  (click wants the backspace itself)
    open_standard_streams()
    if only_check:
        try:
            check(host, port, check_timeout)
        except ServerError as error:
            raise click.ClickException(str(error)) from error
        return
    repository: Path = options["model_repository"]
    options["resources"] = options["resources"] or (DEFAULT_RESOURCES if DEFAULT_RESOURCES.is_dir() else None)
    if options["resources"] is None:
        _refuse_export_options(context)
    for option, ours in OWN_OPTIONS.items():
        if names_option(triton_arguments, option):
            raise click.UsageError(f"{option} after -- would contradict {ours}: give {ours} instead.")
    for option in RESERVED_OPTIONS:
        if names_option(triton_arguments, option):
            raise click.UsageError(f"{option} is this command's own; run tritonserver itself to choose it.")
    try:
        raise_open_files_limit()
        refuse_two_onnxruntimes()
        wanted, reason = _plan_export(options)
        arguments = _triton_arguments(repository, host, port, metrics_port, triton_arguments)
        arguments += body_limit(arguments)
        tritonserver_command(arguments, extras=("server",) if reason is None else ("export", "server"))
        for address in ((host, port), (LOOPBACK, metrics_port)):
            _require_free(*address)
        if wanted is not None and reason is not None:
            click.echo(f"exporting {wanted.resources}: {reason}", err=True)
            run_export(wanted)
        export = read_export(repository)
        if export is None:
            raise RepositoryError(f"{repository} holds no export. Name the trained resources with -r.", repository)
    except (ServerError, MissingExtraError, ExportError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"starting tritonserver on {repository}, version {export.version}, in {export.settings['mode']} mode",
        err=True,
    )

    raise_stack_limit()

    def make_command(access: Access, prefix: str) -> Command:
        return tritonserver_command([*arguments, *_watching_arguments(repository, access, prefix)])

    watcher = Watcher(repository, host=host, port=port, metrics_port=metrics_port, make_command=make_command)
    try:
        sys.exit(watcher.run())
    except ServerError as error:
        raise click.ClickException(str(error)) from error


def _plan_export(options: dict[str, Any]) -> tuple[ExportOptions | None, str | None]:
    """Say what to export, and why; without resources nothing is, and without a reason it lies there already."""
    if options["resources"] is None:
        return None, None
    wanted = ExportOptions(**options)
    if wanted.base_data is None and wanted.mode != "classification" and holds_anything(DEFAULT_BASE_DATA):
        wanted = replace(wanted, base_data=DEFAULT_BASE_DATA)
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
        "--metrics-address": LOOPBACK,
        "--metrics-port": str(metrics_port),
        "--metrics-config": "summary_latencies=true",
        option: pattern,
    }
    return [*(f"{name}={value}" for name, value in defaults.items() if not names_option(arguments, name)), *arguments]


def _watching_arguments(repository: Path, access: Access, prefix: str) -> list[str]:
    ours = {*MODELS, ENSEMBLE}
    others = any(entry.is_dir() and entry.name not in ours for entry in repository.iterdir())
    return [
        # Our configurations are complete, and asking each model for its own takes a process and a second.
        *([] if others else ["--disable-auto-complete-config"]),
        "--model-control-mode=explicit",
        "--load-model=*",
        f"--grpc-address={LOOPBACK}",
        f"--grpc-port={access.grpc_port}",
        *access.restrictions(),
        *(f"--backend-config={backend},shm-region-prefix-name={prefix}" for backend in ("python", "onnxruntime")),
    ]


if __name__ == "__main__":
    main(prog_name="inference-server")
