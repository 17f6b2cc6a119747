"""Makes the demonstration's images and trained resources."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from examples.demonstration.data import list_part, write_images
from examples.demonstration.layout import Layout
from examples.demonstration.settings import TrainingSettings
from examples.demonstration.trained_resources import are_complete, staged_resources
from inference_client.command_line.progress import progress


def prepare_demonstration(layout: Layout) -> None:
    """Write the images, and train unless complete resources of the same settings exist.

    An interrupted training leaves nothing behind. A second training at the same time waits for the first.

    Args:
        layout: Where the files belong.
    """
    settings = TrainingSettings()
    layout.out.mkdir(parents=True, exist_ok=True)
    with _only_one(layout.out / ".lock"):
        write_images(layout.out)
        if are_complete(layout.resources, asdict(settings)):
            click.echo(f"already trained with the same settings: {layout.resources}", err=True)
            return
        _train(layout, settings)


def _train(layout: Layout, settings: TrainingSettings) -> None:
    # PyTorch reads this on import. On shared cores, threads that wait actively make each other many times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from examples.demonstration.train import train_network

    with staged_resources(layout.resources) as staging, progress("training, epochs", settings.epochs) as advance:
        logs = train_network(
            staging, list_part(layout.part("train")), list_part(layout.part("base")), settings, advance=advance
        )
    for epoch, classification, embedding in zip(
        logs.epoch, logs.classification_accuracy, logs.embedding_accuracy, strict=True
    ):
        click.echo(
            f"model_{epoch}: validation accuracy {classification:.3f} (classification), {embedding:.3f} (embedding)",
            err=True,
        )


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            click.echo(f"waiting for another demonstration, which holds {lock}", err=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
