"""Checking that an export can be written to a folder, before any long work."""

from __future__ import annotations

import os
from pathlib import Path

from inference_export.errors import RepositoryError
from inference_export.repository.configs import CONFIG_FILE, RepositoryShape
from inference_export.repository.publishing import is_replaced, previous_path


def resolve_destination(repository: Path) -> Path:
    """Follow links to the folder that an export will write.

    Raises:
        RepositoryError: The links lead in a circle.
    """
    try:
        return repository.resolve()
    except (OSError, RuntimeError) as error:
        raise RepositoryError(
            f"{repository} is a link that leads in a circle. Name another --model_repository.", repository
        ) from error


def check_destination(repository: Path, shape: RepositoryShape) -> None:
    """Refuse a folder that an export can't write to. The folder's parents are made.

    Args:
        repository: The folder, resolved.
        shape: The shape of the export.

    Raises:
        RepositoryError: The folder is a file or a mount point, is not writable, or holds other files.
    """
    if repository.exists() and not repository.is_dir():
        raise RepositoryError(f"{repository} is not a folder. Name another --model_repository.", repository)
    try:
        repository.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RepositoryError(
            f"{repository.parent} can't be made ({error.strerror}). Name another --model_repository.", repository.parent
        ) from error
    for folder in (repository.parent, repository):
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            raise RepositoryError(f"{folder} is not writable. Name another --model_repository.", folder)
    if os.path.ismount(repository):
        raise RepositoryError(
            f"{repository} is a mount point, which can't be replaced in one step. Export to a folder inside it, with "
            f"--model_repository {repository / 'model_repository'}, and serve that folder.",
            repository,
        )
    if _is_full_of_something_else(repository):
        raise RepositoryError(
            f"{repository} holds files, but no model. Name a new or empty folder as --model_repository.", repository
        )
    previous = previous_path(repository)
    if is_replaced(repository, shape) and _is_full_of_something_else(previous):
        raise RepositoryError(
            f"{previous} is not a model repository, and would be overwritten: this export keeps the repository that "
            f"it replaces there. Move {previous.name} away, or name another --model_repository.",
            previous,
        )


def require_changeable(repository: Path) -> None:
    """Refuse a repository whose base set can't be changed, before any long work.

    Args:
        repository: The model repository, resolved.

    Raises:
        RepositoryError: The repository is a mount point, or it or the folder that holds it is not writable.
    """
    if os.path.ismount(repository):
        raise RepositoryError(
            f"{repository} is a mount point. A change is prepared beside the repository and then moved into it, which "
            f"a mount point does not allow. Mount the folder that holds the repository instead, and name the "
            f"repository in it with --model_repository.",
            repository,
        )
    for folder in (repository.parent, repository):
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            raise RepositoryError(
                f"{folder} is not writable. Mount it writable, or run the command as a user who may write there.",
                folder,
            )


def _is_full_of_something_else(folder: Path) -> bool:
    if folder.is_dir() and not folder.is_symlink():
        return any(folder.iterdir()) and not any(folder.glob(f"*/{CONFIG_FILE}"))
    return folder.is_symlink() or folder.exists()
