"""Publishing an exported version in a model repository, which stays loadable at every moment."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

from inference_export.errors import RepositoryError
from inference_export.repository.config_files import read_configs, write_config
from inference_export.repository.configs import (
    CONFIG_FILE,
    ENSEMBLE,
    MODELS,
    RepositoryShape,
    render_configs,
    without_versions,
)
from inference_export.repository.locks import is_held, locked
from inference_export.repository.versions import FIRST_VERSION, complete_versions, exported_version, list_versions
from inference_export.template import template_directory, template_files

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def publish(staged: Path, repository: Path, shape: RepositoryShape) -> int:
    """Add a staged version to a repository, or replace the repository.

    A version of the repository's shape is added. The ensemble answers with it as soon as the ensemble's new
    configuration is renamed over the old one. The version before and the version that is being served are kept; older
    versions are removed.

    A version of another shape makes a new repository, which is exchanged for the old one in one step. The old one is
    kept as ``<name>.previous``.

    Args:
        staged: The folder of ``staging``, with every artefact in place.
        repository: The model repository, resolved.
        shape: The shape of the version.

    Returns:
        The number of the version.

    Raises:
        RepositoryError: The file system can't exchange folders.
    """
    with locked(repository):
        before = exported_version(repository)
        if before is not None and not is_replaced(repository, shape):
            return _add_version(staged, repository, shape, before)
        _replace(staged, repository, shape)
        return FIRST_VERSION


def is_replaced(repository: Path, shape: RepositoryShape) -> bool:
    """Tell whether an export of this shape replaces the repository, instead of adding a version to it."""
    if exported_version(repository) is None:
        return repository.exists()
    configs = render_configs(shape, versions=[], pinned=0)
    try:
        return read_configs(repository) != {model: without_versions(config) for model, config in configs.items()}
    except RepositoryError:
        return True


def previous_path(repository: Path) -> Path:
    """Return the folder that keeps a repository after an export has replaced it."""
    return repository.with_name(f"{repository.name}.previous")


def _add_version(staged: Path, repository: Path, shape: RepositoryShape, before: int) -> int:
    version = max(version for model in MODELS for version in list_versions(repository / model)) + 1
    for model in MODELS:
        (staged / model).rename(repository / model / str(version))
    kept = [old for old in complete_versions(repository) if old in (before, version) or is_held(repository, old)]
    configs = render_configs(shape, versions=kept, pinned=version)
    for model in (*MODELS, ENSEMBLE):
        write_config(repository, model, configs[model])
    for model in MODELS:
        for old in list_versions(repository / model):
            if old not in kept:
                _remove_version(model, repository / model / str(old))
    return version


def _remove_version(model: str, folder: Path) -> None:
    template = template_directory() / model / "1"
    if not (template.is_dir() and folder.samefile(template)):
        shutil.rmtree(folder)
        return
    tracked = template_files(model)
    for file in folder.iterdir():  # this is an export into a checkout, whose tracked files stay
        if file.name not in tracked or not file.samefile(tracked[file.name]):
            file.unlink()


def _replace(staged: Path, repository: Path, shape: RepositoryShape) -> None:
    new = staged / "repository"
    for model, config in render_configs(shape, versions=[FIRST_VERSION], pinned=FIRST_VERSION).items():
        (new / model).mkdir(parents=True)
        (new / model / CONFIG_FILE).write_text(config, encoding="utf-8")
    for model in MODELS:
        (staged / model).rename(new / model / str(FIRST_VERSION))
    shutil.copytree(template_directory() / ENSEMBLE / "1", new / ENSEMBLE / "1", copy_function=shutil.copyfile)
    if not repository.exists():
        new.rename(repository)
        return
    for entry in repository.iterdir():  # the user's other models
        if entry.name not in (*MODELS, ENSEMBLE):
            if entry.is_dir() and not entry.is_symlink():
                shutil.copytree(entry, new / entry.name, symlinks=True)
            else:
                shutil.copy2(entry, new / entry.name, follow_symlinks=False)
    previous = previous_path(repository)
    if previous.exists():
        shutil.rmtree(previous)
    new.rename(previous)
    _exchange(previous, repository)


def _exchange(one: Path, other: Path) -> None:
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None or rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        reason = "not supported by this system" if rename is None else os.strerror(ctypes.get_errno())
        raise RepositoryError(
            f"{other} can't be exchanged for the new repository in one step ({reason}). The new repository is in "
            f"{one}. Serve that folder, or export to a folder that does not exist yet.",
            other,
        )
