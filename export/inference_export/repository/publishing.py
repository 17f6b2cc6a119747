"""Publishing an exported version in a model repository, which stays loadable at every moment."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from inference_export.errors import OverlappingChangeError, RepositoryError
from inference_export.repository.config_files import pin_version, read_config, read_configs
from inference_export.repository.configs import (
    CONFIG_FILE,
    ENSEMBLE,
    HEAD,
    MODELS,
    NETWORK_MODELS,
    RepositoryShape,
    Version,
    parse_config,
    render_configs,
    without_versions,
)
from inference_export.repository.locks import is_held, locked
from inference_export.repository.versions import (
    FIRST_VERSION,
    complete_versions,
    exported_version,
    find_version,
    list_folders,
    next_number,
)
from inference_export.template import template_directory, template_files

_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def publish(staged: Path, repository: Path, shape: RepositoryShape) -> Version:
    """Add a staged version to a repository, or replace the repository.

    A version of the repository's shape is added. The ensemble answers with it as soon as the ensemble's new
    configuration is renamed over the old one. The version before and the version that is being served are kept; older
    versions are removed, unless that fails: ``unremoved`` names those.

    A version of another shape makes a new repository, which is exchanged for the old one in one step. The old one is
    kept as ``<name>.previous``.

    Args:
        staged: The folder of ``staging``, with every artefact in place.
        repository: The model repository, resolved.
        shape: The shape of the version.

    Returns:
        The version.

    Raises:
        RepositoryError: The file system can't exchange folders.
    """
    with locked(repository):
        before = exported_version(repository)
        if before is not None and not is_replaced(repository, shape):
            number = next_number(repository)
            return _add_version(staged, repository, Version(number=number, network=number), before)
        _replace(staged, repository, shape)
        return FIRST_VERSION


def publish_base_set(staged: Path, repository: Path, before: Version) -> Version:
    """Add a staged base set to a repository, as a version with the same network as the version before.

    Args:
        staged: The folder of ``staging``, with every artefact of ``cluster_head`` in place.
        repository: The model repository, resolved.
        before: The version that the new one was made from.

    Returns:
        The version.

    Raises:
        OverlappingChangeError: The repository answers with another version than ``before`` by now.
    """
    with locked(repository):
        if exported_version(repository) != before:
            raise OverlappingChangeError(
                f"{repository} was changed by another command meanwhile, so this change would undo the other. Run the "
                f"command again.",
                repository,
            )
        version = Version(number=next_number(repository), network=before.network)
        return _add_version(staged, repository, version, before, models=(HEAD,))


def drop_base_sets(repository: Path, numbers: Collection[int]) -> None:
    """Remove base sets from a repository, with the networks that no other version uses. The caller holds the lock.

    Killed in between, it leaves versions that are complete or that nobody takes for complete.

    Args:
        repository: The model repository, resolved. Its configurations list none of the versions.
        numbers: Numbers of the versions, complete or not.

    Raises:
        OSError: A file can't be removed.
    """
    versions = [find_version(repository, number) for number in list_folders(repository / HEAD)]
    used = {version.network for version in versions if version.number not in numbers}
    for version in versions:
        if version.number not in numbers:
            continue
        for model in NETWORK_MODELS:
            folder = repository / model / version.folder(model)
            if version.network not in used and folder.is_dir():
                _remove_version(model, folder)
        _remove_version(HEAD, repository / HEAD / version.folder(HEAD))


def unremoved(repository: Path) -> list[str]:
    """Note that older versions could not be removed, such as those of another user; [] if none is left."""
    with locked(repository):
        folders = [
            f"{model}/{number}"
            for model in MODELS
            for listed in [parse_config(read_config(repository, model)).version_policy.specific.versions]
            for number in list_folders(repository / model)
            if number not in listed and not _is_template(model, repository / model / str(number))
        ]
    if not folders:
        return []
    return [
        f"older versions can't be removed from {repository}, and stay there unused: {', '.join(folders)}. Remove these "
        f"folders as the user who owns them."
    ]


def is_replaced(repository: Path, shape: RepositoryShape) -> bool:
    """Tell whether an export of this shape replaces the repository, instead of adding a version to it."""
    if exported_version(repository) is None:
        return repository.exists()
    configs = render_configs(shape, versions=[], pinned=FIRST_VERSION)
    try:
        return read_configs(repository) != {model: without_versions(config) for model, config in configs.items()}
    except RepositoryError:
        return True


def previous_path(repository: Path) -> Path:
    """Return the folder that keeps a repository after an export has replaced it."""
    return repository.with_name(f"{repository.name}.previous")


def _add_version(
    staged: Path, repository: Path, version: Version, before: Version, *, models: Sequence[str] = MODELS
) -> Version:
    for model in models:
        (staged / model).rename(repository / model / version.folder(model))
    kept = [old for old in complete_versions(repository) if old in (before, version) or is_held(repository, old.number)]
    pin_version(repository, version, kept)
    for model in MODELS:
        folders = {old.folder(model) for old in kept}
        for number in list_folders(repository / model):
            if str(number) not in folders:
                with contextlib.suppress(OSError):  # the new version is there already; see unremoved
                    _remove_version(model, repository / model / str(number))
    return version


def _remove_version(model: str, folder: Path) -> None:
    if not _is_template(model, folder):
        _remove_folder(folder)
        return
    tracked = template_files(model)
    for file in folder.iterdir():  # this is an export into a checkout, whose tracked files stay
        if file.name not in tracked or not file.samefile(tracked[file.name]):
            file.unlink()


def _is_template(model: str, folder: Path) -> bool:
    template = template_directory() / model / "1"
    return template.is_dir() and folder.samefile(template)


def _remove_folder(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:  # which names no more than a file within the folder
        raise OSError(error.errno, error.strerror, str(folder)) from error


def _replace(staged: Path, repository: Path, shape: RepositoryShape) -> None:
    new = staged / "repository"
    for model, config in render_configs(shape, versions=[FIRST_VERSION], pinned=FIRST_VERSION).items():
        (new / model).mkdir(parents=True)
        (new / model / CONFIG_FILE).write_text(config, encoding="utf-8")
    for model in MODELS:
        (staged / model).rename(new / model / FIRST_VERSION.folder(model))
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
        _remove_folder(previous)
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
