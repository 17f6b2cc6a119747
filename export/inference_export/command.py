"""The command ``export-repository``."""

from __future__ import annotations

import signal
from typing import Any

import click

from inference_client.command_line.extras import MissingExtraError, require_extras
from inference_client.command_line.options import COMMAND_SETTINGS
from inference_client.command_line.printing import print_result
from inference_client.command_line.progress import progress
from inference_client.version import __version__
from inference_export.command_options import base_data_option, export_options, resources_option
from inference_export.errors import ExportError, Terminated
from inference_export.export_options import ExportOptions
from inference_export.exporting import export_repository
from inference_export.full_disk import REASONS
from inference_export.repository.staging import STAGING
from inference_export.summary import format_summary

TERMINATED_EXIT_CODE = 128 + signal.SIGTERM


@click.command(context_settings=COMMAND_SETTINGS)
@resources_option(required=True)
@base_data_option()
@export_options
@click.version_option(__version__)
def main(**options: Any) -> None:
    """Build a Triton model repository from trained resources.

    The command writes the ONNX classifier, the base embeddings and the labels,
    checks them against PyTorch, and only then changes the repository. After an
    interrupted or failed export, the previous one is still loadable.

    \b
    Examples:
      export-repository -r trained/                          classification
      export-repository -r trained/ -data base/ -thres 0.8   clustering, stricter matches
      export-repository -r trained/ --network nets:make      your own network, from nets.py

    Exit status: 0 exported, 1 refused or failed (nothing replaced), 2 wrong usage.
    """  # noqa: D301  (click wants the backspace itself)
    run_export(ExportOptions(**options))


def run_export(options: ExportOptions) -> None:
    """Export and print the summary, or end with a message and exit code 1."""
    signal.signal(signal.SIGTERM, _terminate)  # so that the staging folder is removed
    try:
        require_extras("export")
        summary = export_repository(options, progress)
    except (ExportError, MissingExtraError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        where = error.filename or options.model_repository
        if STAGING in str(where):  # a folder that the user does not know
            where = options.model_repository
        if error.errno in REASONS:
            raise click.ClickException(
                f"{where} can't be written: {REASONS[error.errno]}, or name another --model_repository. Nothing was "
                f"replaced."
            ) from error
        raise click.ClickException(f"{where}: {error.strerror or error}. Nothing was replaced.") from error
    print_result(format_summary(summary))


def _terminate(*_: object) -> None:
    raise Terminated(TERMINATED_EXIT_CODE)
