"""Changes of the folder of base images, which are undone if the base set can't follow."""

from __future__ import annotations

import contextlib
import filecmp
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from inference_export.errors import BaseDataError


@contextlib.contextmanager
def images_added(folder: Path, class_name: str, files: Sequence[Path]) -> Iterator[None]:
    """Copy files into a class folder; if the context raises, remove the copies again.

    Args:
        folder: The base data.
        class_name: Name of the class, which may be new.
        files: The files. One that lies in the class folder already, with the same content, is left alone.

    Raises:
        BaseDataError: A name is no name of a class or is taken, or a file can't be copied.
    """
    if not folder.is_dir():
        raise BaseDataError(f"{folder} is not a folder. Name the folder of base images with -data.", folder)
    target = folder / plain(class_name)
    with contextlib.ExitStack() as undo:
        if not target.is_dir():
            target.mkdir()
            undo.callback(_remove_if_empty, target)
        for file in files:
            if _is_there_already(file, target / plain(file.name)):
                continue
            _copy_in_one_step(file, target / file.name)
            undo.callback((target / file.name).unlink, missing_ok=True)
        yield
        undo.pop_all()


@contextlib.contextmanager
def images_removed(folder: Path, names: Sequence[str], destination: Path) -> Iterator[None]:
    """Move images out of the class folders; if the context raises, move them back.

    Args:
        folder: The base data.
        names: ``class/file name`` of each image.
        destination: The folder that they are moved to, into a folder for each class.

    Raises:
        BaseDataError: There is no such image, or one of that name was moved there before.
    """
    for name in names:
        if not _path_of(folder, name).is_file():
            raise BaseDataError(
                f"{folder} holds no base image {name}. Give class/file, as base-set list --images shows it.", folder
            )
    with contextlib.ExitStack() as undo:
        for name in dict.fromkeys(names):
            file, moved = _path_of(folder, name), _path_of(destination, name)
            if moved.exists():
                raise BaseDataError(f"{moved} exists, and would be overwritten. Move it away.", moved)
            moved.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(file, moved)
            undo.callback(_move_back, moved, file)
            _remove_if_empty(file.parent)
        yield
        undo.pop_all()


def plain(name: str) -> str:
    """Return the name of a class or an image.

    Raises:
        BaseDataError: It is a path, empty, or hidden.
    """
    if not name or name.startswith(".") or Path(name).name != name:
        raise BaseDataError(f"{name!r} is no name of a class or an image: name class/file, without dots in front.")
    return name


def _path_of(folder: Path, name: str) -> Path:
    class_name, _, file_name = name.partition("/")
    return folder / plain(class_name) / plain(file_name)


def _is_there_already(file: Path, copy: Path) -> bool:
    if not file.is_file():
        raise BaseDataError(f"{file} is not a file. Name image files.", file)
    if not copy.exists():
        return False
    if copy.is_file() and filecmp.cmp(file, copy, shallow=False):
        return True
    raise BaseDataError(f"{copy} exists with another content. Rename {file}, or remove the other image first.", copy)


def _copy_in_one_step(file: Path, target: Path) -> None:
    """Copy a file so that nobody sees a part of it: hidden files are no base images."""
    copy = target.with_name(f".{target.name}.new")
    try:
        shutil.copyfile(file, copy)
        copy.rename(target)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise


def _move_back(moved: Path, file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    shutil.move(moved, file)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
