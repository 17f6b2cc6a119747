"""Trained resources, base sets and images for the scenarios."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests import resources, tiny_network
from tests.chaos.reloads import copy_base, run_export
from tests.once import make_once

IMAGE_SIZE = 64
LABELS = ("autistic", "non_autistic", "other")
BASE_IMAGES = {"alpha": range(30, 45), "beta": range(140, 150), "gamma": range(50, 69)}
QUERIES = (0, 10, 20, 110, 120, 130)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The files of the scenarios.

    Attributes:
        folder: Folder for the repositories and logs of one process.
        images: The query images.
        trained, retrained: Resources of two networks that differ only in their weights.
        base, smaller, larger: Base sets: of three classes, of two, and of four.
        network: Options of the export that name the network's class; none for the built-in ResNet-50.
    """

    folder: Path
    images: Sequence[Path]
    trained: Path
    retrained: Path
    base: Path
    smaller: Path
    larger: Path
    network: Sequence[str] = ()

    def arguments(self, repository: str | Path, *more: object, base: Path | None = None, trained: Path | None = None):
        """Return the arguments of an export."""
        return ["-r", trained or self.trained, "-data", base or self.base, "-thres", "0.4", "--image_size", IMAGE_SIZE,
                "--model_repository", self.folder / repository, *self.network, *more]  # fmt: skip

    def export(self, repository: str, *more: object) -> Path:
        """Export with the command and return the repository. A place's first repository is a copy of one made once."""
        target = self.folder / repository
        if more or target.exists():
            self._run_export(repository, *more)
        else:
            exported = make_once(self.trained.parents[1] / "exported", self._run_export)
            shutil.copytree(exported, target)
        return target

    def _run_export(self, repository: str | Path, *more: object) -> None:
        done = run_export(*self.arguments(repository, *more))
        assert done.exit_code == 0, done.output


def prepare(folder: Path, *, tiny: bool = False) -> Setting:
    """Make all files in a folder, unless they exist, and return their setting.

    Args:
        folder: Where the files are made.
        tiny: Whether the networks are ``TinyNetwork``, which is exported in seconds, instead of ResNet-50.
    """
    made = make_once(folder / "made", lambda made: _make(made, tiny=tiny))
    return Setting(
        folder=folder,
        images=sorted((made / "images").iterdir()),
        trained=made / "trained",
        retrained=made / "retrained",
        base=made / "base",
        smaller=made / "smaller",
        larger=made / "larger",
        network=("--network", tiny_network.NETWORK) if tiny else (),
    )


def _make(folder: Path, *, tiny: bool) -> None:
    images = [*resources.write_photographs(folder / "images"), *resources.write_faces(folder / "images", QUERIES, "x")]
    base = folder / "base"
    for name, numbers in BASE_IMAGES.items():
        resources.write_faces(base / name, numbers, "image")
    for seed, name in enumerate(("trained", "retrained")):
        spread = tiny_network.spread_network if tiny else resources.spread_network
        network = spread(len(LABELS), IMAGE_SIZE, images, seed=seed)
        labels = {label: index for index, label in enumerate(LABELS)}
        resources.write_resources(folder / name, {"model_7": network.state_dict()}, labels)
    copy_base(base, folder / "smaller", without="alpha")
    copy_base(base, folder / "larger", also="delta")
