"""Changes of the folder of base images, which are undone if the base set can't follow."""

from __future__ import annotations

import contextlib
import errno
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
    target = folder / require_plain(class_name)
    with contextlib.ExitStack() as undo:
        if not target.is_dir():
            target.mkdir()
            undo.callback(_remove_if_empty, target)
        for file in files:
            if _is_there_already(file, target / require_plain(file.name)):
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
        BaseDataError: There is no such image, one of that name was moved there before, or the destination lies in
            the base data.
    """
    if destination.resolve().is_relative_to(folder.resolve()):
        raise BaseDataError(
            f"{destination} lies in {folder}, and would be taken for a class. Name a folder outside.", destination
        )
    for name in names:
        check_name(name)
        if not (folder / name).is_file():
            raise BaseDataError(
                f"{folder} holds no base image {name}. Give class/file, as base-set list --images shows it.", folder
            )
    with contextlib.ExitStack() as undo:
        for name in dict.fromkeys(names):
            file, moved = folder / name, destination / name
            if moved.exists():
                raise BaseDataError(f"{moved} exists, and would be overwritten. Move it away.", moved)
            for made in (each for each in (destination, moved.parent) if not each.exists()):
                undo.callback(_remove_if_empty, made)
            moved.parent.mkdir(parents=True, exist_ok=True)
            move(file, moved)
            undo.callback(_move_back, moved, file)
            _remove_if_empty(file.parent)
        yield
        undo.pop_all()


def check_name(name: str) -> None:
    """Refuse what is no ``class/file name`` of a base image.

    Raises:
        BaseDataError: It is another path, or a part of it is empty or hidden.
    """
    class_name, _, file_name = name.partition("/")
    if not (_is_plain(class_name) and _is_plain(file_name) and name.isprintable()):
        raise BaseDataError(
            f"{name!a} is no name of a base image. Give its class and its file name, such as face/anna.jpg, as "
            f"base-set list --images shows them."
        )


def require_plain(name: str) -> str:
    """Return the name of a class or of an image file.

    Raises:
        BaseDataError: It is a path, empty, hidden, or no printable text.
    """
    if not (_is_plain(name) and name.isprintable()):
        raise BaseDataError(
            f"{name!a} is no name of a class or an image: it is a path, empty, not printable, or begins with a dot."
        )
    return name


def move(file: Path, target: Path) -> None:
    """Move a file, to another file system as well. If it can't be moved whole, no copy of it is left.

    Raises:
        OSError: The file can't be moved.
    """
    try:
        file.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        try:
            shutil.copy2(file, target, follow_symlinks=False)
            file.unlink()
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _is_plain(name: str) -> bool:
    return bool(name) and not name.startswith(".") and Path(name).name == name


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
    move(moved, file)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
