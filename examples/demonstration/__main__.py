"""The command line of the demonstration."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from examples.demonstration.errors import DemonstrationError
from examples.demonstration.layout import MODES, Layout
from inference_client.command_line.options import COMMAND_SETTINGS

DEFAULT_OUT = Path("build/demonstration")
TERMINATED_EXIT_CODE = 128 + signal.SIGTERM

out_option: Callable[[Any], Any] = click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    default=DEFAULT_OUT,
    help="Folder for everything that the demonstration makes. The demonstration may replace anything in it.",
)


@click.group(context_settings=COMMAND_SETTINGS)
def main() -> None:
    """Train, export, serve and query a small network on real images.

    Splits 200 grey images from scikit-image's wheel, half of them faces, into a
    train, a base and a query part. Trains the real architecture, a ResNet-50
    with two heads, from scratch in about a minute on two cores. The query
    images take no part in the training or in the choice of a checkpoint.

    \b
    Examples:
      python -m examples.demonstration run                         clustering: faces like those in the base set
      python -m examples.demonstration run --mode classification   the classifier head alone
      python -m examples.demonstration prepare                     only the images and trained resources
    """  # noqa: D301  (click wants the backspace itself)
    # SIGTERM ends the program as Ctrl-C does, so that a running server is stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED_EXIT_CODE))


@main.command()
@out_option
def prepare(out: Path) -> None:
    """Write the images, train, and write trained resources.

    Does not train again if DIR already holds complete resources of the same
    settings. Afterwards DIR holds train/, base/ and query/ with a folder for
    each class, and resources/ with labels, models/ and logs/logs.

    Exit status: 0 prepared, 1 failed, 2 wrong usage.
    """
    from examples.demonstration.prepare import prepare_demonstration

    try:
        prepare_demonstration(Layout(out=out))
    except DemonstrationError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@out_option
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default=MODES[0],
    help="clustering compares with base images; classification uses the network's own classes.",
)
def run(out: Path, mode: str) -> None:
    """Prepare if needed, export, start a real tritonserver, classify the query images, and stop the server.

    Prints a table of the answers and, as the last line, the held-out accuracy.

    Exit status: 0 at an accuracy of at least 0.95, 1 below that or failed, 2 wrong usage.
    """
    from examples.demonstration.data import list_part
    from examples.demonstration.held_out import (
        ACCURACY_GOAL,
        classify_queries,
        explain_shortfall,
        format_accuracy,
        format_answers,
    )
    from examples.demonstration.prepare import prepare_demonstration
    from examples.demonstration.serving import export_demonstration, serve_demonstration

    layout = Layout(out=out)
    try:
        prepare_demonstration(layout)
        export_demonstration(layout, mode)
        with serve_demonstration(layout, mode) as url:
            answers = classify_queries(url, list_part(layout.part("query")).files)
    except DemonstrationError as error:
        raise click.ClickException(str(error)) from error
    right = sum(answer.is_right for answer in answers)
    click.echo(format_answers(answers))
    click.echo(format_accuracy(right, len(answers)))
    if right / len(answers) < ACCURACY_GOAL:
        raise click.ClickException(explain_shortfall(layout.resources, mode))
    click.echo(
        f"next, to serve it and judge it:\n"
        f"  make serve\n"
        f"  .venv/bin/classify-evaluate {layout.part('query')} -ip http://127.0.0.1:8080 -data {layout.part('base')}",
        err=True,
    )


if __name__ == "__main__":
    main(prog_name="python -m examples.demonstration")
