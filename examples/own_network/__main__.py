"""The command line of the example."""

from __future__ import annotations

from pathlib import Path

import click

from examples.demonstration.data import list_part, write_images
from examples.demonstration.errors import DemonstrationError
from examples.demonstration.layout import Layout
from examples.demonstration.trained_resources import staged_resources
from inference_client.command_line.options import COMMAND_SETTINGS
from inference_client.command_line.progress import progress


@click.command(context_settings=COMMAND_SETTINGS)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    default=Path("build/own_network"),
    help="Folder for the images and the trained resources. The example may replace anything in it.",
)
def main(out: Path) -> None:
    """Train a network of another architecture on the demonstration's images.

    The training takes some seconds. Afterwards DIR holds train/, base/ and
    query/ with a folder for each class, and resources/ with labels, models/ and
    logs/logs.

    \b
    Examples:
      python -m examples.own_network
      inference-server -r build/own_network/resources -data build/own_network/base \\
        --network examples.own_network.network:SmallNetwork

    Exit status: 0 trained, 1 failed, 2 wrong usage.
    """  # noqa: D301  (click wants the backspace itself)
    from examples.own_network.train import SETTINGS, train_network

    layout = Layout(out=out)
    try:
        write_images(out)
        with (
            staged_resources(layout.resources) as staging,
            progress("training, epochs", SETTINGS.epochs) as advance,
        ):
            train_network(staging, list_part(layout.part("train")), advance=advance)
    except DemonstrationError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"trained {layout.resources}")


if __name__ == "__main__":
    main(prog_name="python -m examples.own_network")
