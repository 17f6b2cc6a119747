"""The folder beside a model repository in which an export prepares a version."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from inference_export.repository.configs import MODELS
from inference_export.repository.locks import lock_folder
from inference_export.template import template_files

STAGING = ".staging-"  # part of such a folder's name
# An empty file of this name keeps Python from making a folder of this name, after which Triton would reload the model.
_BYTECODE_BLOCKER = "__pycache__"


@contextlib.contextmanager
def staging(repository: Path, *, models: Sequence[str] = MODELS) -> Iterator[Path]:
    """Make a folder beside a repository for the version that is being exported, and remove it at the end.

    The folder holds one folder for each model, with the template's Python files inside. Folders that killed exports
    left behind are removed too.

    Args:
        repository: The model repository, resolved; its parent exists.
        models: The models that the version is a version of.
    """
    with contextlib.ExitStack() as stack:
        with lock_folder(repository.parent):  # or another export would remove the new folder
            _remove_left_over(repository)
            folder = Path(tempfile.mkdtemp(prefix=_prefix(repository), dir=repository.parent))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(lock_folder(folder))
        for model in models:
            (folder / model).mkdir()
            files = template_files(model)
            for name, file in files.items():
                shutil.copyfile(file, folder / model / name)
            if files:
                (folder / model / _BYTECODE_BLOCKER).touch()
        yield folder


def staging_folders(repository: Path) -> list[Path]:
    """List the folders beside a repository in which exports and changes prepare versions, or have left them.

    Args:
        repository: The model repository, resolved.
    """
    return sorted(each for each in repository.parent.iterdir() if each.name.startswith(_prefix(repository)))


def is_being_changed(repository: Path) -> bool:
    """Tell whether another command is preparing a version.

    Args:
        repository: The model repository, resolved.
    """
    with lock_folder(repository.parent):
        return any(_is_used(folder) for folder in staging_folders(repository))


def remove_left_over(repository: Path) -> None:
    """Remove the folders that killed exports and changes left behind.

    Args:
        repository: The model repository, resolved.
    """
    with lock_folder(repository.parent):
        _remove_left_over(repository)


def retire(folder: Path, repository: Path) -> None:
    """Remove a folder beside a repository. Killed in between, it leaves what ``remove_left_over`` removes.

    Args:
        folder: The folder.
        repository: The model repository, resolved.
    """
    with lock_folder(repository.parent):
        _remove_left_over(repository)
        folder.rename(folder.with_name(f"{_prefix(repository)}{folder.name}"))
        _remove_left_over(repository)


def _remove_left_over(repository: Path) -> None:
    for stale in staging_folders(repository):
        with contextlib.suppress(OSError), lock_folder(stale, blocking=False):
            shutil.rmtree(stale)


def _is_used(folder: Path) -> bool:
    try:
        with lock_folder(folder, blocking=False):
            return False
    except OSError:
        return True


def _prefix(repository: Path) -> str:
    return f".{repository.name}{STAGING}"
