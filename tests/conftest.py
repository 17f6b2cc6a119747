"""Real exports and real servers, made once a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from inference_client import Classify
from inference_export.__main__ import main as export_main
from inference_server.process import RunningServer, running_server
from tests import resources

SMALL = 64
FULL = 384
LABELS = ("autistic", "non_autistic", "other")
BASE_CLASSES = ("alpha", "beta", "gamma")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Trained resources, and what went into them."""

    folder: Path
    state: dict[str, torch.Tensor]
    image_size: int


def pytest_configure() -> None:
    """Undo that a shell's background jobs ignore Ctrl-C, which the programs started by tests would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep embeddings of the tests' own, so that none is found that an earlier run computed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="session")
def query_images(workspace: Path) -> list[Path]:
    """Real images: photographs as JPEG, faces and others as grey PNG."""
    faces = resources.write_faces(workspace / "queries", [0, 10, 20, 110, 120, 130], "face")
    return [*resources.write_photographs(workspace / "queries"), *faces]


@pytest.fixture(scope="session")
def base_data(workspace: Path) -> dict[str, list[Path]]:
    """A base set of three classes, in folders that are not listed in sorted order."""
    folder = workspace / "base"
    names = sorted(resources.unsorted_folders(folder, BASE_CLASSES))
    chunks = (range(30, 37), range(140, 145), range(50, 59))
    return {
        name: resources.write_faces(folder / name, chunk, "image") for name, chunk in zip(names, chunks, strict=True)
    }


@pytest.fixture(scope="session")
def calibration(query_images: list[Path], base_data: dict[str, list[Path]]) -> list[Path]:
    """Images of all kinds that the tests use, which the networks of random weights are set by."""
    return [*query_images[::2], *(file for files in base_data.values() for file in files[::3])]


@pytest.fixture(scope="session")
def small(workspace: Path, calibration: list[Path]) -> Trained:
    return _train(workspace / "small", calibration, SMALL)


@pytest.fixture(scope="session")
def full(workspace: Path, calibration: list[Path]) -> Trained:
    return _train(workspace / "full", calibration, FULL)


@pytest.fixture(scope="session")
def small_clustering(workspace: Path, small: Trained, base_data: dict[str, list[Path]]) -> Path:
    """An exported repository: S = 64, clustering."""
    return export(small, workspace / "small_clustering", "-data", str(_folder(base_data)), "-thres", "0.4")


@pytest.fixture(scope="session")
def clustering_server(workspace: Path, small_clustering: Path) -> Iterator[RunningServer]:
    with running_server(small_clustering, log=workspace / "clustering.log") as server:
        yield server


@pytest.fixture(scope="session")
def small_classification(workspace: Path, small: Trained) -> Path:
    return export(small, workspace / "small_classification")


@pytest.fixture(scope="session")
def classification_server(workspace: Path, small_classification: Path) -> Iterator[RunningServer]:
    with running_server(small_classification, log=workspace / "classification.log") as server:
        yield server


@pytest.fixture(scope="session")
def full_clustering_server(workspace: Path, full: Trained, base_data: dict[str, list[Path]]) -> Iterator[RunningServer]:
    repository = export(full, workspace / "full_clustering", "-data", str(_folder(base_data)), "-thres", "0.4")
    with running_server(repository, log=workspace / "full_clustering.log") as server:
        yield server


@pytest.fixture(scope="session")
def full_classification_server(workspace: Path, full: Trained) -> Iterator[RunningServer]:
    repository = export(full, workspace / "full_classification")
    with running_server(repository, log=workspace / "full_classification.log") as server:
        yield server


@pytest.fixture
def classify(clustering_server: RunningServer) -> Iterator[Classify]:
    with Classify(clustering_server.url) as client:
        yield client


def export(trained: Trained, repository: Path, *arguments: str) -> Path:
    """Export with the command line, as a user would."""
    result = CliRunner().invoke(
        export_main,
        ["-r", str(trained.folder), "--model_repository", str(repository), "--image_size", str(trained.image_size),
         *arguments],
        catch_exceptions=False,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return repository


def _train(folder: Path, files: list[Path], size: int) -> Trained:
    network = resources.spread_network(len(LABELS), size, files)
    labels = {name: index for index, name in enumerate(LABELS)}
    resources.write_resources(folder, {"model_7": network.state_dict()}, labels)
    return Trained(folder=folder, state=network.state_dict(), image_size=size)


def _folder(base: dict[str, list[Path]]) -> Path:
    return Path(os.path.commonpath([file for files in base.values() for file in files]))
