"""What many tests share: real exports, made once a run, and real servers, started once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from inference_client import Classify
from inference_export import ExportOptions, export_repository
from inference_export.command import main as export_main
from inference_server.triton.process import RunningServer, running_server
from tests import resources, tiny_network
from tests.checkout import copy_checkout
from tests.docs.summary import pytest_terminal_summary  # noqa: F401  (a hook, which only this file's can be)
from tests.once import WORKER, make_once, run_folder

SMALL = 64
FULL = 384
LABELS = ("autistic", "non_autistic", "other")
BASE_CLASSES = ("alpha", "beta", "gamma")
CHECKPOINT = "model_7"
# Whatever asks for one of these fixtures runs in one process, so that each server is started once.
SERVERS = frozenset({
    "clustering_server", "classification_server", "full_clustering_server", "full_classification_server",
    "clustering_evaluation", "classification_evaluation", "console",
})  # fmt: skip
# The longest group, and pages of docs, whose first makes what all of them need: these start first, side by side.
FIRST = ("test_chaos.py", "test_snippets.py")
# Fixtures that start a server, export ResNet-50, train a network, or build and install packages; files of such tests
# are marked as a whole.
SLOW = SERVERS | {"small", "full", "setting", "clone", "built"}


def pytest_configure() -> None:
    """Undo that a shell's background jobs ignore Ctrl-C, which the programs started by tests would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow; keep in one process what shares a server or another fixture of a file; start the longest."""
    for item in items:
        fixtures = {*getattr(item, "fixturenames", ()), *_parameters(item)}
        if fixtures & SLOW:
            item.add_marker(pytest.mark.slow)
        if WORKER and item.get_closest_marker("xdist_group") is None:
            if fixtures & SERVERS:
                item.add_marker(pytest.mark.xdist_group("servers"))
            elif _shares_a_fixture_of_its_file(item):
                item.add_marker(pytest.mark.xdist_group(item.path.stem))
    items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


def _shares_a_fixture_of_its_file(item: pytest.Item) -> bool:
    information = getattr(item, "_fixtureinfo", None)
    definitions = information.name2fixturedefs.values() if information else ()
    return any(each.scope in {"class", "module", "package"} for found in definitions for each in found)


def _parameters(item: pytest.Item) -> list[str]:
    """List the texts among a test's parameters, which may be names of fixtures."""
    specification = getattr(item, "callspec", None)
    return [value for value in specification.params.values() if isinstance(value, str)] if specification else []


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Trained resources, and what went into them."""

    folder: Path
    image_size: int

    @cached_property
    def state(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = torch.load(self.folder / "models" / CHECKPOINT, weights_only=True)
        return state


@pytest.fixture(scope="session", autouse=True)
def process_of_its_own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep embeddings of the tests' own, so that no run finds an earlier one's; share the cores with other workers."""
    if request.config.getoption("loadgroup", default=False):
        for item in request.session.items:
            grouped = item.get_closest_marker("xdist_group") is None or "@" in item.nodeid.rpartition("]")[2]
            assert grouped, "pytest-xdist splits groups of tests up: install the versions in constraints.txt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        if WORKER:
            patch.setenv("OMP_NUM_THREADS", "1")
            torch.set_num_threads(1)
        yield


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one process's own files."""
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what ``make_once`` makes."""
    return run_folder(tmp_path_factory) / "shared"


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
def small(shared: Path, calibration: list[Path]) -> Trained:
    return _train(shared / "small", calibration, SMALL)


@pytest.fixture(scope="session")
def full(shared: Path, calibration: list[Path]) -> Trained:
    return _train(shared / "full", calibration, FULL)


@pytest.fixture(scope="session")
def small_clustering(shared: Path, small: Trained, base_data: dict[str, list[Path]]) -> Path:
    """An exported repository: ResNet-50, S = 64, clustering. Copy it to change it."""
    return _export_once(small, shared / "small_clustering", "-data", str(_folder(base_data)), "-thres", "0.4")


@pytest.fixture(scope="session")
def small_classification(shared: Path, small: Trained) -> Path:
    """An exported repository: ResNet-50, S = 64, classification. Copy it to change it."""
    return _export_once(small, shared / "small_classification")


@pytest.fixture(scope="session")
def clustering_server(workspace: Path, small_clustering: Path) -> Iterator[RunningServer]:
    with running_server(small_clustering, log=workspace / "clustering.log") as server:
        yield server


@pytest.fixture(scope="session")
def classification_server(workspace: Path, small_classification: Path) -> Iterator[RunningServer]:
    with running_server(small_classification, log=workspace / "classification.log") as server:
        yield server


@pytest.fixture(scope="session")
def full_clustering_server(
    workspace: Path, shared: Path, full: Trained, base_data: dict[str, list[Path]]
) -> Iterator[RunningServer]:
    arguments = ("-data", str(_folder(base_data)), "-thres", "0.4")
    repository = _export_once(full, shared / "full_clustering", *arguments)
    with running_server(repository, log=workspace / "full_clustering.log") as server:
        yield server


@pytest.fixture(scope="session")
def full_classification_server(workspace: Path, shared: Path, full: Trained) -> Iterator[RunningServer]:
    repository = _export_once(full, shared / "full_classification")
    with running_server(repository, log=workspace / "full_classification.log") as server:
        yield server


@pytest.fixture(scope="session")
def built(shared: Path) -> Path:
    """The folder of an sdist, and of a wheel made from it, built in a copy of the checkout that holds an export."""
    return make_once(shared / "checkout", _build_distributions) / "out"


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    (file,) = built.glob("*.whl")
    return file


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


def _export_once(trained: Trained, repository: Path, *arguments: str) -> Path:
    return make_once(repository, lambda folder: export(trained, folder, *arguments))


def _train(folder: Path, files: list[Path], size: int) -> Trained:
    def write(folder: Path) -> None:
        network = resources.spread_network(len(LABELS), size, files)
        labels = {name: index for index, name in enumerate(LABELS)}
        resources.write_resources(folder, {CHECKPOINT: network.state_dict()}, labels)

    return Trained(folder=make_once(folder, write), image_size=size)


def _folder(base: dict[str, list[Path]]) -> Path:
    return Path(os.path.commonpath([file for files in base.values() for file in files]))


def _build_distributions(folder: Path) -> None:
    copy_checkout(folder)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    trained = tiny_network.write_tiny_resources(folder.with_name("checkout_trained"))
    options = ExportOptions(
        resources=trained, network=tiny_network.NETWORK, model_repository=folder / "model_repository"
    )
    export_repository(options)
    assert (folder / "model_repository" / "classifier" / "1" / "model.onnx").is_file()
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(folder / "out"), str(folder)],
        capture_output=True, check=True,
    )  # fmt: skip
