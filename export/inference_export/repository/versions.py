"""The versions in a model repository: the complete ones, and the one that the ensemble answers with."""

from __future__ import annotations

from pathlib import Path

from inference_export.repository.config_files import read_config
from inference_export.repository.configs import ENSEMBLE, MODELS, pinned_version

FIRST_VERSION = 1
# The files that make a version complete.
ARTEFACTS = (
    "preprocess/{}/model.py",
    "classifier/{}/model.onnx",
    "cluster_head/{}/model.py",
    "cluster_head/{}/settings.json",
    "preprocess/{}/settings.json",
)


def exported_version(repository: Path) -> int | None:
    """Find the version that the ensemble answers with; None if the repository holds no complete export."""
    try:
        version = pinned_version(read_config(repository, ENSEMBLE))
    except (OSError, ValueError):
        return None
    return version if version is not None and is_complete(repository, version) else None


def complete_versions(repository: Path) -> list[int]:
    """List the complete versions, ascending."""
    return [version for version in list_versions(repository / MODELS[0]) if is_complete(repository, version)]


def is_complete(repository: Path, version: int) -> bool:
    """Tell whether every model has all files of a version."""
    return all((repository / file.format(version)).is_file() for file in ARTEFACTS)


def list_versions(model_folder: Path) -> list[int]:
    """List the versions of one model, complete or not, ascending."""
    return sorted(int(folder.name) for folder in model_folder.iterdir() if folder.name.isdecimal() and folder.is_dir())
