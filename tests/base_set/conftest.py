"""A repository of a tiny network with a base set, made once and copied for each test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from inference_export.command import main as export_main
from inference_server.base_set.command import main
from tests import tiny_network
from tests.once import make_once
from tests.resources import write_faces


@dataclass(frozen=True, kw_only=True)
class Living:
    """A repository, and the folder of base images that it was exported with."""

    folder: Path

    @property
    def repository(self) -> Path:
        return self.folder / "model_repository"

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def export(self, *options: object, repository: Path | None = None) -> Path:
        """Export the folder of base images as it is now, and return the repository."""
        target = repository or self.repository
        arguments = ["-r", self.folder / "trained", "--network", tiny_network.NETWORK, "-data", self.base,
                     "--model_repository", target, "--cache", self.cache, *options]  # fmt: skip
        done = CliRunner().invoke(export_main, list(map(str, arguments)), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return target

    def run(self, command: str, *arguments: object, images: bool = True) -> Result:
        """Run a command of ``base-set`` on the repository; ``images`` tells whether it takes the base images."""
        more = ["-data", self.base, "--cache", self.cache] if images else []
        given = [command, *arguments, "--model_repository", self.repository, *more]
        return CliRunner().invoke(main, list(map(str, given)))

    def ask(self, command: str, *arguments: object, images: bool = True, exit_code: int = 0) -> dict[str, Any]:
        """Run a command with ``--json`` and return what it prints."""
        done = self.run(command, *arguments, "--json", images=images)
        assert done.exit_code == exit_code, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def head(self, version: int) -> Path:
        return self.repository / "cluster_head" / str(version)


@pytest.fixture
def living(shared: Path, tmp_path: Path) -> Living:
    made = make_once(shared / "living", make_living)
    return Living(folder=Path(shutil.copytree(made, tmp_path / "living")))


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Return a function that reads all files of a folder."""
    return lambda folder: {
        str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()
    }


def make_living(folder: Path) -> None:
    tiny_network.write_tiny_resources(folder / "trained")
    write_faces(folder / "base" / "face", [1, 2, 3, 4], "x")
    write_faces(folder / "base" / "other", [101, 102, 103], "x")
    Living(folder=folder).export()
