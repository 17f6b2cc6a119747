"""Writing a model repository so that whatever lies there is loadable at every moment."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from inference_export.errors import RepositoryError
from inference_export.regular_files import read_regular_file
from inference_export.repository.configs import (
    CONFIG_FILE,
    ENSEMBLE,
    MAX_CONFIG_BYTES,
    MODELS,
    RepositoryShape,
    pinned_version,
    render_configs,
    with_versions,
    without_versions,
)
from inference_export.template import template_directory, template_files

FIRST_VERSION = 1
STAGING = ".staging-"  # in the names of folders in which exports are prepared
# What makes a version complete, beside what the template gives it.
ARTEFACTS = (
    "preprocess/{}/model.py",
    "classifier/{}/model.onnx",
    "cluster_head/{}/model.py",
    "cluster_head/{}/settings.json",
    "preprocess/{}/settings.json",
)
# An empty file of this name keeps Python from writing a folder of this name, which Triton would take for a change.
_BYTECODE_BLOCKER = "__pycache__"
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100


def exported_version(repository: Path) -> int | None:
    """Find the version that the ensemble answers with; None where no complete export lies."""
    try:
        version = pinned_version(_read_config(repository, ENSEMBLE))
    except (OSError, ValueError):
        return None
    return version if version is not None and is_complete(repository, version) else None


def is_complete(repository: Path, version: int) -> bool:
    """Say whether every model has all files of a version."""
    return all((repository / file.format(version)).is_file() for file in ARTEFACTS)


def previous_path(repository: Path) -> Path:
    """Where the repository goes that a whole new one has replaced."""
    return repository.with_name(f"{repository.name}.previous")


def resolve_destination(repository: Path) -> Path:
    """Follow links, so that what they point to is written.

    Raises:
        RepositoryError: The links lead in a circle.
    """
    try:
        return repository.resolve()
    except (OSError, RuntimeError) as error:
        raise RepositoryError(f"{repository} is a link that leads in a circle. Name another.", repository) from error


def check_destination(repository: Path, shape: RepositoryShape) -> None:
    """Refuse a destination that could not be written in the end, before any long work.

    Args:
        repository: The folder to write, resolved.
        shape: What is to be exported.

    Raises:
        RepositoryError: It is no folder, can't be written, or is a mount point that would have to be replaced.
    """
    if repository.exists() and not repository.is_dir():
        raise RepositoryError(f"{repository} is no folder. Name another --model_repository.", repository)
    try:
        repository.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RepositoryError(f"{repository.parent} can't be made ({error.strerror}).", repository.parent) from error
    for folder in (repository.parent, repository):
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            raise RepositoryError(f"{folder} is not writable. Name another --model_repository.", folder)
    if os.path.ismount(repository):
        raise RepositoryError(
            f"{repository} is a mount point: what lies there can't be replaced in one step. Export to a folder inside "
            f"it, as --model_repository {repository / 'model_repository'}, and serve that.",
            repository,
        )
    if _is_full_of_something_else(repository):
        raise RepositoryError(
            f"{repository} holds files, but no model. Name a new folder, or an empty one, as --model_repository.",
            repository,
        )
    previous = previous_path(repository)
    if is_replaced(repository, shape) and _is_full_of_something_else(previous):
        raise RepositoryError(
            f"{previous} is no model repository, and would be overwritten: it is where the repository goes that this "
            f"export replaces. Move it away, or name another --model_repository.",
            previous,
        )


@contextlib.contextmanager
def staging(repository: Path) -> Iterator[Path]:
    """Make a folder beside a repository to prepare version folders in, removed at the end.

    Holds a folder for each model of the version, with the template's Python files in it. What killed exports have left
    is removed as well.

    Args:
        repository: The folder to write, resolved; its parent exists.
    """
    prefix = f".{repository.name}{STAGING}"
    with contextlib.ExitStack() as stack:
        with _locked(repository.parent):  # or another export would take the new folder for a stale one
            for stale in repository.parent.iterdir():
                if stale.name.startswith(prefix):
                    with contextlib.suppress(OSError), _locked(stale, blocking=False):
                        shutil.rmtree(stale)
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=repository.parent))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(_locked(folder))
        for model in MODELS:
            _copy_template(model, folder / model)
        yield folder


def publish(staged: Path, repository: Path, shape: RepositoryShape) -> int:
    """Put a staged version into a repository, or a whole new repository in its place.

    An export of the shape that lies there adds a version, and renaming the ensemble's configuration is the moment at
    which it happens; the version before is kept, and one that is being served, and older ones are removed. Any other is
    exchanged for the old repository in one step, and the old one kept as ``<name>.previous``.

    Args:
        staged: The folder of ``staging``, with every artefact in place.
        repository: The folder to write, resolved.
        shape: What all its versions share.

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


@contextlib.contextmanager
def locked(repository: Path) -> Iterator[None]:
    """Keep others from changing what a repository answers with, for a moment."""
    with _locked(repository.parent):
        yield


@contextlib.contextmanager
def hold_version(repository: Path, version: int) -> Iterator[None]:
    """Keep exports from removing a version that is being served.

    Raises:
        OSError: It is not there.
    """
    with _locked(_held_folder(repository, version), shared=True):
        yield


def pin_version(repository: Path, version: int, others: Iterable[int]) -> None:
    """Have the ensemble answer with a complete version, from the next load or start on.

    Args:
        repository: The folder, resolved.
        version: The version.
        others: Complete versions that are to stay loaded beside it.
    """
    for model in (*MODELS, ENSEMBLE):
        config = with_versions(_read_config(repository, model), sorted({version, *others}), version)
        _write_config(repository / model / CONFIG_FILE, config)


def complete_versions(repository: Path) -> list[int]:
    """List the versions of which every model has all files, ascending."""
    return [version for version in _versions(repository / MODELS[0]) if is_complete(repository, version)]


def read_configs(repository: Path) -> dict[str, str]:
    """Read what all versions in a repository share.

    Args:
        repository: The model repository.

    Returns:
        Model name to its configuration, version numbers blanked.

    Raises:
        RepositoryError: A configuration can't be read.
    """
    try:
        return {model: without_versions(_read_config(repository, model)) for model in (*MODELS, ENSEMBLE)}
    except (OSError, ValueError) as error:
        raise RepositoryError(f"{repository} is damaged ({error}). Run the export again.", repository) from error


def _is_full_of_something_else(folder: Path) -> bool:
    if folder.is_dir() and not folder.is_symlink():
        return any(folder.iterdir()) and not any(folder.glob(f"*/{CONFIG_FILE}"))
    return folder.is_symlink() or folder.exists()


def is_replaced(repository: Path, shape: RepositoryShape) -> bool:
    """Say whether an export of this shape takes the place of what lies there, instead of adding a version."""
    return repository.exists() and not (exported_version(repository) is not None and _has_shape(repository, shape))


def _add_version(staged: Path, repository: Path, shape: RepositoryShape, before: int) -> int:
    version = max(version for model in MODELS for version in _versions(repository / model)) + 1
    for model in MODELS:
        (staged / model).rename(repository / model / str(version))
    kept = [old for old in complete_versions(repository) if old in (before, version) or _is_held(repository, old)]
    configs = render_configs(shape, versions=kept, pinned=version)
    for model in (*MODELS, ENSEMBLE):
        _write_config(repository / model / CONFIG_FILE, configs[model])
    for model in MODELS:
        for old in _versions(repository / model):
            if old not in kept:
                _remove_version(model, repository / model / str(old))
    return version


def _read_config(repository: Path, model: str) -> str:
    return read_regular_file(repository / model / CONFIG_FILE, MAX_CONFIG_BYTES).decode("utf-8")


def _write_config(path: Path, text: str) -> None:
    replacement = path.with_name(f".{path.name}.new")
    replacement.write_text(text, encoding="utf-8")
    replacement.replace(path)


def _held_folder(repository: Path, version: int) -> Path:
    return repository / "cluster_head" / str(version)


def _is_held(repository: Path, version: int) -> bool:
    try:
        with _locked(_held_folder(repository, version), blocking=False):
            return False
    except OSError:
        return True


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
    for entry in repository.iterdir():  # other models of the user's
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


def _copy_template(model: str, folder: Path) -> None:
    folder.mkdir()
    files = template_files(model)
    for name, file in files.items():
        shutil.copyfile(file, folder / name)
    if files:
        (folder / _BYTECODE_BLOCKER).touch()


def _remove_version(model: str, folder: Path) -> None:
    template = template_directory() / model / "1"
    if not (template.is_dir() and folder.samefile(template)):
        shutil.rmtree(folder)
        return
    tracked = template_files(model)
    for file in folder.iterdir():  # an export into a checkout: its tracked files stay
        if file.name not in tracked or not file.samefile(tracked[file.name]):
            file.unlink()


def _has_shape(repository: Path, shape: RepositoryShape) -> bool:
    configs = render_configs(shape, versions=[], pinned=0)
    try:
        return read_configs(repository) == {model: without_versions(config) for model, config in configs.items()}
    except RepositoryError:
        return False


def _versions(model_folder: Path) -> list[int]:
    return sorted(int(folder.name) for folder in model_folder.iterdir() if folder.name.isdecimal() and folder.is_dir())


@contextlib.contextmanager
def _locked(folder: Path, *, blocking: bool = True, shared: bool = False) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if blocking else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> None:
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None or rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        reason = "not supported by this system" if rename is None else os.strerror(ctypes.get_errno())
        raise RepositoryError(
            f"{other} can't be exchanged for the new repository in one step ({reason}). The new one lies in {one}: "
            f"serve that, or export to a folder that does not exist yet.",
            other,
        )
