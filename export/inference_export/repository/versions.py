"""The versions in a model repository: the complete ones, and the one that the ensemble answers with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inference_export.errors import RepositoryError
from inference_export.repository.config_files import read_config
from inference_export.repository.configs import ENSEMBLE, HEAD, MODELS, Version, pinned_version
from inference_export.repository.version_files import SETTINGS_FILE, is_count, read_object

FIRST_VERSION = Version(number=1, network=1)
PROVENANCE_FILE = "provenance.json"
# The entry of ``provenance.json`` that names a version's network; null: the one that was exported with it.
NETWORK_VERSION = "network version"
# The files that make a version complete.
_FILES = (
    ("preprocess", "model.py"),
    ("classifier", "model.onnx"),
    (HEAD, "model.py"),
    (HEAD, SETTINGS_FILE),
    ("preprocess", SETTINGS_FILE),
)


def exported_version(repository: Path) -> Version | None:
    """Find the version that the ensemble answers with; None if the repository holds no complete export."""
    try:
        version = pinned_version(read_config(repository, ENSEMBLE))
    except (OSError, ValueError):
        return None
    return version if version is not None and is_complete(repository, version) else None


def complete_versions(repository: Path) -> list[Version]:
    """List the complete versions, ascending."""
    versions = [find_version(repository, number) for number in list_folders(repository / HEAD)]
    return [version for version in versions if is_complete(repository, version)]


def previous_version(repository: Path, number: int) -> Version:
    """Find the version to go back to: the highest complete one below a number.

    Raises:
        RepositoryError: There is none.
    """
    older = [version for version in complete_versions(repository) if version.number < number]
    if not older:
        raise RepositoryError(
            f"{repository} holds no complete version before {number}, so there is none to go back to. To get older "
            f"answers back, export the older resources or base data again.",
            repository,
        )
    return older[-1]


def find_version(repository: Path, number: int) -> Version:
    """Read which network a version belongs to: by default, the one that was exported with it."""
    try:
        network: Any = read_object(repository / HEAD / str(number) / PROVENANCE_FILE).get(NETWORK_VERSION)
    except RepositoryError:
        return Version(number=number, network=number)
    return Version(number=number, network=network if is_count(network) else number)


def is_complete(repository: Path, version: Version) -> bool:
    """Tell whether every model has all files of a version."""
    return not missing_files(repository, version)


def missing_files(repository: Path, version: Version) -> list[str]:
    """List the files that a version lacks, relative to the repository."""
    files = [f"{model}/{version.folder(model)}/{name}" for model, name in _FILES]
    return [file for file in files if not (repository / file).is_file()]


def next_number(repository: Path) -> int:
    """Return the number after the highest in the repository, complete or not."""
    return 1 + max(number for model in MODELS for number in list_folders(repository / model))


def list_folders(model_folder: Path) -> list[int]:
    """List the numbers of a model's version folders, complete or not, ascending."""
    return sorted(int(folder.name) for folder in model_folder.iterdir() if folder.name.isdecimal() and folder.is_dir())
