"""Real evaluations, made once a run."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from inference_evaluation.__main__ import main
from inference_server.triton.process import RunningServer
from tests import resources
from tests.conftest import LABELS

EXPORTED_THRESHOLD = 0.4  # of clustering_server
HOSTILE_CLASS = "\"><img src=x onerror='hacked=1'> $x^2$"
HOSTILE_FILE = "<script>hacked=1</script>".replace("/", "\u2215") + "\u202egnp.png"


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The files and the output of an evaluation."""

    out: Path
    images: Path
    stdout: str
    stderr: str


def evaluate(images: Path, server: RunningServer, out: Path, *arguments: str) -> Evaluated:
    result = CliRunner().invoke(
        main, [str(images), "-ip", server.url, "--out", str(out), *arguments], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return Evaluated(out=out, images=images, stdout=result.stdout, stderr=result.stderr)


@pytest.fixture(scope="session")
def labelled_images(workspace: Path, base_data: dict[str, list[Path]]) -> Path:
    """Images of the base set's classes and of an unknown class, and one file that is no image."""
    folder = workspace / "labelled"
    for name, faces in zip(base_data, (range(60, 66), range(160, 165), range(66, 70)), strict=True):
        resources.write_faces(folder / name, faces, "query")
    shutil.copy(next(iter(base_data.values()))[0], folder / next(iter(base_data)) / HOSTILE_FILE)
    resources.write_faces(folder / HOSTILE_CLASS, (180,), "stranger")
    (folder / next(iter(base_data)) / "broken.jpg").write_bytes(b"no image")
    (folder / "nothing").mkdir()
    return folder


@pytest.fixture(scope="session")
def clustering_evaluation(
    workspace: Path, labelled_images: Path, clustering_server: RunningServer, base_data: dict[str, list[Path]]
) -> Evaluated:
    base = next(iter(base_data.values()))[0].parents[1]
    return evaluate(labelled_images, clustering_server, workspace / "clustering_evaluation", "-data", str(base))


@pytest.fixture(scope="session")
def classification_evaluation(workspace: Path, classification_server: RunningServer) -> Evaluated:
    folder = workspace / "labelled_for_classification"
    for number, name in enumerate(LABELS):
        resources.write_faces(folder / name, range(70 + 5 * number, 75 + 5 * number), "query")
    return evaluate(folder, classification_server, workspace / "classification_evaluation")
