"""The command ``inference-server``: exports if needed, then serves."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import click

from inference_client.command_line.extras import MissingExtraError, refuse_two_onnxruntimes, require_extras
from inference_client.command_line.options import COMMAND_SETTINGS
from inference_client.command_line.progress import progress
from inference_client.version import __version__
from inference_export.changing import BaseSetOptions
from inference_export.command import run_export
from inference_export.command_errors import explained_errors
from inference_export.command_options import base_data_option, export_options, resources_option
from inference_export.errors import BaseDataError, ExportError, RepositoryError
from inference_export.export_options import ExportOptions
from inference_export.repository.reading import read_export
from inference_server.addresses import LOOPBACK, base_url, require_free
from inference_server.base_set.changing import LargeRemovalError, change_base_set
from inference_server.base_set.report import change_text
from inference_server.base_set.sync_process import run_sync, sync_command
from inference_server.base_set.watch_metrics import WATCH_PACKAGES, WatchMetrics
from inference_server.base_set.watching import FolderWatch
from inference_server.console.keeper import CONSOLE_PORT, ConsoleKeeper, console_command
from inference_server.errors import ServerError
from inference_server.options import port_option
from inference_server.server_arguments import OWN_OPTIONS, RESERVED_OPTIONS, serving_arguments, supervision_arguments
from inference_server.start_plan import (
    DEFAULT_BASE_DATA,
    DEFAULT_RESOURCES,
    default_base_data,
    default_resources,
    plan_start,
)
from inference_server.supervision.checking import TIMEOUT_S, check
from inference_server.supervision.watching import Watcher
from inference_server.triton.access import Access
from inference_server.triton.arguments import names_option, option_value
from inference_server.triton.launch import Launch, prepare_launch
from inference_server.triton.limits import raise_open_files_limit, raise_stack_limit
from inference_server.triton.scheduling import schedule_as_batch
from inference_server.triton.standard_streams import open_standard_streams

METRICS_PORT = 8002
WATCH_METRICS_PORT = 8003
EXPORT_OPTIONS = {field.name for field in fields(ExportOptions)}
SYNC_OPTIONS = {"model_repository", "base_data", "cache", "batch_size", "skip_unreadable"}
CONSOLE_OPTIONS = {"model_repository", "base_data", "cache"}


@click.command(context_settings=COMMAND_SETTINGS)
@resources_option(show_default=f"{DEFAULT_RESOURCES} if it exists; otherwise the repository is served as it is")
@base_data_option(show_default=f"{DEFAULT_BASE_DATA} unless it is missing or empty")
@export_options
@click.option("--host", default=LOOPBACK, help="Address to listen on; 0.0.0.0 for all addresses.")
@port_option(help="HTTP port.")
@click.option(
    "--metrics_port",
    type=click.IntRange(1, 65535),
    default=METRICS_PORT,
    help=f"Port of the metrics, on {LOOPBACK}.",
)
@click.option(
    "--watch_base_data",
    is_flag=True,
    help="Have the base set follow the folder of base images: whenever it has changed and been quiet for a second. A "
    "change that base-set sync would refuse leaves what is served as it is.",
)
@click.option(
    "--watch_metrics_port",
    type=click.IntRange(1, 65535),
    default=WATCH_METRICS_PORT,
    help="Port of the metrics of --watch_base_data, on the address of the other metrics.",
)
@click.option(
    "--console",
    "with_console",
    is_flag=True,
    help=f"Start inference-console as well, on {LOOPBACK}, for people: try an image, and see and correct the base set. "
    "For another address, with logins, start inference-console yourself.",
)
@click.option("--console_port", type=click.IntRange(1, 65535), default=CONSOLE_PORT, help="Port of --console.")
@click.option(
    "--console_queries",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Images whose answers --console compares before a change of the base set.",
)
@click.option(
    "--check",
    "only_check",
    is_flag=True,
    help="Start no server. Ask the one at --host and --port to classify a small image, and exit with 0 if it answers "
    "within --check_timeout. For load balancers, health checks and probes.",
)
@click.option(
    "--check_timeout",
    type=click.IntRange(1, 600),
    default=round(TIMEOUT_S),
    help="Longest time for --check, in seconds. Until then, a busy server (503) is asked again. Set 30 so that a busy "
    "server does not count as broken.",
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
    watch_base_data: bool,
    watch_metrics_port: int,
    with_console: bool,
    console_port: int,
    console_queries: Path | None,
    only_check: bool,
    check_timeout: int,
    triton_arguments: tuple[str, ...],
    **options: Any,
) -> None:
    """Serve trained resources: export them if needed, then run tritonserver.

    Exports unless the model repository holds an export of the same resources and
    options, and says why. If only the base data or the options of the base set
    have changed, changes the base set alone, as base-set does. Without resources,
    serves the model repository as it is.

    Watches over the server: within seconds, replaces a model process that has
    died or hangs, or restarts tritonserver. Only reload-repository may use the
    gRPC endpoint.

    \b
    Examples:
      inference-server -r trained/ -data base/
      inference-server -r trained/ -data base/ --watch_base_data
      inference-server -r trained/ -data base/ --console
      inference-server -r trained/ --host 0.0.0.0 --port 80
      inference-server --model_repository exported/ -- --log-verbose=1
      inference-server --check

    Exit status: 0 after SIGTERM or Ctrl-C; 1 if the export, the start or the check failed; 2 wrong usage; 3 if a
    process failed again and again.
    """  # noqa: D301  (click wants the backspace itself)
    open_standard_streams()
    try:
        if only_check:
            check(host, port, check_timeout)
            return
        options["resources"] = options["resources"] or default_resources()
        if options["resources"] is None:
            used = (SYNC_OPTIONS if watch_base_data else set()) | (CONSOLE_OPTIONS if with_console else set())
            _refuse_export_options(context, allowed={"model_repository", *used})
        _refuse_reserved_options(triton_arguments)
        if watch_base_data:
            options["base_data"] = _watched_folder(options)
        code = _serve(
            options,
            triton_arguments,
            host=host,
            port=port,
            metrics_port=metrics_port,
            watch_metrics_port=watch_metrics_port if watch_base_data else None,
            console_port=console_port if with_console else None,
            console_queries=console_queries,
        )
        sys.exit(code)
    except (ServerError, MissingExtraError, ExportError) as error:
        raise click.ClickException(str(error)) from error


def _serve(
    options: Mapping[str, Any],
    triton_arguments: Sequence[str],
    *,
    host: str,
    port: int,
    metrics_port: int,
    watch_metrics_port: int | None,
    console_port: int | None,
    console_queries: Path | None,
) -> int:
    """Export if needed, and serve.

    ``watch_metrics_port`` is None if the folder of base images is not watched, ``console_port`` if no console runs.
    """
    watches = watch_metrics_port is not None
    repository: Path = options["model_repository"]
    metrics_address = option_value(triton_arguments, "--metrics-address") or LOOPBACK
    raise_open_files_limit()
    refuse_two_onnxruntimes()
    plan = plan_start(options, watches=watches)
    arguments = serving_arguments(
        repository, host=host, port=port, metrics_port=metrics_port, arguments=triton_arguments
    )
    # Finds obstacles to the start before a long export.
    prepare_launch(arguments, extras=("export", "server") if plan.export else ("server",))
    addresses = {"--port": (host, port), "--metrics_port": (metrics_address, metrics_port)}
    if watch_metrics_port is not None:
        require_extras("server", also=WATCH_PACKAGES)
        addresses["--watch_metrics_port"] = (metrics_address, watch_metrics_port)
    if console_port is not None:
        require_extras("console")
        addresses["--console_port"] = (LOOPBACK, console_port)
    require_free(addresses)
    if plan.warning:
        click.echo(f"warning: {plan.warning}", err=True)
    if plan.export:
        click.echo(f"exporting {plan.export.resources}: {plan.reason}", err=True)
        run_export(plan.export)
    if plan.change:
        click.echo(f"changing the base set: {plan.reason}", err=True)
        _change_base_set(plan.change, may_stay=watches)
    export = read_export(repository)
    if export is None:
        raise RepositoryError(f"{repository} holds no export. Name the trained resources with -r.", repository)
    if watches and export.settings.mode != "clustering":
        raise RepositoryError(
            f"{repository} answers in classification mode, and has no base set that could follow "
            f"{options['base_data']}. Leave --watch_base_data out, or export with -r, -data and --mode clustering.",
            repository,
        )
    click.echo(
        f"starting tritonserver on {repository}, version {export.version.number}, in {export.settings.mode} mode",
        err=True,
    )
    raise_stack_limit()
    schedule_as_batch()

    def make_launch(access: Access, memory_prefix: str) -> Launch:
        return prepare_launch([*arguments, *supervision_arguments(repository, access, memory_prefix)])

    @contextmanager
    def watch(folder: Path, metrics_port: int) -> Iterator[None]:
        metrics = WatchMetrics()
        sync = partial(run_sync, sync_command(**{name: options[name] for name in SYNC_OPTIONS}))
        folder_watch = FolderWatch(folder, sync, port=port, metrics=metrics)
        with metrics.served(metrics_address, metrics_port), folder_watch.running():
            yield

    @contextmanager
    def alongside() -> Iterator[None]:
        with ExitStack() as stack:
            if watch_metrics_port is not None:
                stack.enter_context(watch(options["base_data"], watch_metrics_port))
            if console_port is not None:
                has_base_set = export.settings.mode == "clustering"
                command = console_command(
                    base_url(host, port),
                    port=console_port,
                    model_repository=repository,
                    base_data=(options["base_data"] or default_base_data()) if has_base_set else None,
                    cache=options["cache"],
                    queries=console_queries,
                )
                stack.enter_context(ConsoleKeeper(command).running())
            yield

    watcher = Watcher(
        repository, host=host, port=port, metrics_port=metrics_port, make_launch=make_launch, alongside=alongside
    )
    return watcher.run()


def _watched_folder(options: Mapping[str, Any]) -> Path:
    folder: Path | None = options["base_data"] or default_base_data()
    if folder is None:
        raise click.UsageError(
            f"--watch_base_data has no folder to watch: {DEFAULT_BASE_DATA} does not exist. Name one with -data."
        )
    if options["mode"] == "classification":
        raise click.UsageError("--mode classification has no base set, and contradicts --watch_base_data. Omit one.")
    return folder


def _change_base_set(options: BaseSetOptions, *, may_stay: bool) -> None:
    """Change the base set before the start; ``may_stay``: the folder is watched, so that it can follow later."""
    with explained_errors(options.model_repository):
        try:
            outcome = change_base_set(options, progress=progress)
        except BaseDataError as error:  # a volume that is not mounted must not change what is served
            if not (may_stay or isinstance(error, LargeRemovalError)):
                raise
            click.echo(f"warning: the base set stays as it is. {error}", err=True)
        else:
            click.echo(change_text(outcome), err=True)


def _refuse_export_options(context: click.Context, allowed: Collection[str]) -> None:
    for parameter in context.command.params:
        name = str(parameter.name)
        is_given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if is_given and name in EXPORT_OPTIONS and name not in allowed:
            raise click.UsageError(
                f"{parameter.opts[-1]} describes an export, and has no effect without -r. Give -r as well.", context
            )


def _refuse_reserved_options(triton_arguments: Sequence[str]) -> None:
    for option, ours in OWN_OPTIONS.items():
        if names_option(triton_arguments, option):
            raise click.UsageError(f"{option} after -- contradicts {ours}. Give {ours} instead.")
    for option in RESERVED_OPTIONS:
        if names_option(triton_arguments, option):
            raise click.UsageError(f"{option} is reserved for this command. To choose it, run tritonserver itself.")
