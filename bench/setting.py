"""The setting of all benchmarks: images, trained resources, exported repositories, and durations."""

from __future__ import annotations

import functools
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from bench.errors import BenchError
from bench.images import write_images
from bench.resources import write_resources

IMAGE_SIZE = 384


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The folder and the durations.

    Attributes:
        folder: The folder for all files of the benchmarks.
        rounds: Number of times to measure everything, in turn.
        seconds: Duration of each measurement, in seconds.
        classify_images: Length of the list that ``Classify`` gets.
    """

    folder: Path
    rounds: int
    seconds: float
    classify_images: int

    @property
    def images(self) -> Path:
        """The folder of the query images."""
        return self.folder / "images"

    @property
    def queries(self) -> list[Path]:
        """The query images, JPEG files."""
        return sorted(self.images.glob("*.jpg"))

    @property
    def resources(self) -> Path:
        """The trained resources for S = 384."""
        return self.folder / "resources"

    def repository(self, name: str) -> Path:
        """Return the folder of an exported repository."""
        return self.folder / f"repository-{name}"

    def prepare(self) -> None:
        """Write images, a base set of two classes, and trained resources, unless they exist."""
        if (self.resources / "labels").is_file():
            return
        everything = write_images(self.folder / "made")
        half = len(everything) // 2
        self.images.mkdir(parents=True, exist_ok=True)
        for file in everything[:half]:
            shutil.copy(file, self.images)
        for number, file in enumerate(everything[half:]):
            target = self.folder / "base" / ("even", "odd")[number % 2]
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
        click.echo("making a network of random weights", err=True)
        write_resources(self.resources, everything[:half], IMAGE_SIZE)

    def export(self, name: str, *options: str, resources: Path | None = None, base_data: str | None = "base") -> Path:
        """Export a repository, once, with the command that users have.

        Args:
            name: Name of the repository.
            options: More options of the command.
            resources: Trained resources to use instead of the usual ones.
            base_data: Name of the folder of the base images, below ``folder``; None: classification mode.

        Returns:
            The folder of the repository.

        Raises:
            BenchError: The export failed.
        """
        repository = self.repository(name)
        command = [
            str(Path(sys.executable).with_name("export-repository")), "-r", str(resources or self.resources),
            *(["-data", str(self.folder / base_data)] if base_data else []),
            "--model_repository", str(repository), "--cache", str(self.folder / "cache"), *options,
        ]  # fmt: skip
        _run(tuple(command))
        return repository


@functools.cache
def _run(command: tuple[str, ...]) -> None:
    click.echo(f"exporting {command[command.index('--model_repository') + 1]}", err=True)
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise BenchError(f"{shlex.join(command)} failed:\n{done.stdout}")
