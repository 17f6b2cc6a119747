"""The command ``export-repository``."""

from __future__ import annotations

from typing import Any

import click

from inference_client.command_line.extras import require_extras
from inference_client.command_line.options import COMMAND_SETTINGS
from inference_client.command_line.printing import print_result
from inference_client.command_line.progress import progress
from inference_client.version import __version__
from inference_export.command_errors import explained_errors
from inference_export.command_options import base_data_option, export_options, resources_option
from inference_export.export_options import ExportOptions
from inference_export.exporting import export_repository
from inference_export.summary import format_summary


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
    with explained_errors(options.model_repository):
        require_extras("export")
        summary = export_repository(options, progress)
    print_result(format_summary(summary))
