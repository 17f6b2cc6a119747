"""The folder of base images as a change would leave it, for ``base-set check`` to read before anything changes."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PureWindowsPath

from inference_export.errors import BaseDataError
from inference_server.base_set.image_folder import check_name, require_plain

MAX_NAME_BYTES = 255
_FILES, _BASE = "files", "base"
_CLASS_LINK = "@"  # and a number


class NameTakenError(BaseDataError):
    """A name is taken by another image."""


class NoSuchImageError(BaseDataError):
    """There is no base image of a name."""


@dataclass(frozen=True, kw_only=True)
class Addition:
    """Files that a person wants to add to a class. They wait in a folder of their own.

    Attributes:
        class_name: The class, which may be new.
        files: The files, which bear the names that they would have in the class.
    """

    class_name: str
    files: tuple[Path, ...]

    @property
    def names(self) -> list[str]:
        """``class/file name`` of each image."""
        return [f"{self.class_name}/{file.name}" for file in self.files]


def keep_files(
    folder: Path, base_data: Path, class_name: str, uploads: Iterable[tuple[str, bytes]], *, rename: bool
) -> Addition:
    """Write uploaded files into a folder of their own, under the names that they would have among the base images.

    Of two files with the same name and content, one is kept.

    Args:
        folder: The folder, which does not exist yet.
        base_data: The folder of base images.
        class_name: The class.
        uploads: Each file's name as the browser gave it, of which the last part counts, and its content.
        rename: Give another name to a file whose name is taken by another content, instead of refusing it.

    Raises:
        BaseDataError: A name can't be used.
        NameTakenError: A name is taken, or the class holds all files already.
        OSError: The disk is full.
    """
    contents = _names(uploads, base_data / _require_short(require_plain(class_name)), rename=rename)
    if not contents:
        raise NameTakenError(f"{class_name} holds these images already, so there is nothing to add.")
    target = folder / _FILES
    target.mkdir(parents=True)
    try:
        for name, content in contents.items():
            (target / name).write_bytes(content)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return Addition(class_name=class_name, files=tuple(target / name for name in contents))


def preview_addition(folder: Path, base_data: Path, addition: Addition) -> None:
    """Lay out the base images, in ``preview_path``, as they would be with more files in a class. Copies no image.

    Args:
        folder: The folder that ``keep_files`` has made.
        base_data: The folder of base images.
        addition: The files.

    Raises:
        BaseDataError: The base images can't be listed, or a name was taken meanwhile.
    """
    preview = _link_classes(folder, base_data, touched={addition.class_name})
    class_folder = preview / addition.class_name
    class_folder.mkdir()
    if (base_data / addition.class_name).is_dir():
        _link_images(folder, base_data / addition.class_name, class_folder, without=())
    for file in addition.files:
        try:
            (class_folder / file.name).symlink_to(file)
        except FileExistsError:
            if not _holds(base_data / addition.class_name / file.name, file.read_bytes()):
                raise _taken(addition.class_name, file.name) from None


def preview_removal(folder: Path, base_data: Path, names: Sequence[str]) -> None:
    """Lay out the base images, in ``preview_path``, as they would be without some. Copies no image.

    Args:
        folder: A folder, which may not exist yet.
        base_data: The folder of base images.
        names: ``class/file name`` of each image to leave out.

    Raises:
        BaseDataError: The base images can't be listed, or hold no such image.
    """
    gone: dict[str, list[str]] = {}
    for name in require_images(base_data, names):
        class_name, _, file_name = name.partition("/")
        gone.setdefault(class_name, []).append(file_name)
    preview = _link_classes(folder, base_data, touched=gone)
    for class_name, file_names in gone.items():
        (preview / class_name).mkdir()
        _link_images(folder, base_data / class_name, preview / class_name, without=file_names)
        with contextlib.suppress(OSError):  # it holds images
            (preview / class_name).rmdir()


def require_images(base_data: Path, names: Sequence[str]) -> list[str]:
    """Return names of base images, each once.

    Raises:
        BaseDataError: One is no ``class/file name``.
        NoSuchImageError: There is no such image.
    """
    for name in names:
        check_name(name)
        if not _is_file(base_data / name):
            raise NoSuchImageError(f"There is no base image {name}, or not any more. Reload the page of the base set.")
    return list(dict.fromkeys(names))


def preview_path(folder: Path) -> Path:
    """Return where a preview lies: a folder of base images, of links to those that are there and to new files."""
    return folder / _BASE


def remove_preview(folder: Path) -> None:
    """Remove the links of a preview; the files stay."""
    shutil.rmtree(preview_path(folder), ignore_errors=True)
    for link in folder.glob(f"{_CLASS_LINK}*"):
        link.unlink()


def in_words(folder: Path, base_data: Path) -> Callable[[str], str]:
    """Return what replaces a preview's own paths in a message: nobody knows that folder."""
    replaced = (
        (str(preview_path(folder)), str(base_data)),
        (f"{folder / _FILES}{os.sep}", ""),
        (f"{folder}{os.sep}", ""),
    )

    def replace(text: str) -> str:
        for path, words in replaced:
            text = text.replace(path, words)
        return text

    return replace


def _names(uploads: Iterable[tuple[str, bytes]], class_folder: Path, *, rename: bool) -> dict[str, bytes]:
    """Name each file that the class does not hold yet."""
    contents: dict[str, bytes] = {}
    for given, content in uploads:
        name = _last_part(given)
        if contents.get(name) == content or _holds(class_folder / name, content):
            continue
        if rename:
            name = _free_name(name, contents, class_folder)
        elif name in contents:
            raise NameTakenError(f"Two of the files are called {name}, with different content. Rename one.")
        elif os.path.lexists(class_folder / name):
            raise _taken(class_folder.name, name)
        contents[name] = content
    return contents


def _last_part(given: str) -> str:
    """Return the name of an uploaded file: some browsers send its folder too, and anybody may."""
    return _require_short(require_plain(PureWindowsPath(PurePath(given).name).name))


def _require_short(name: str) -> str:
    if len(name.encode()) > MAX_NAME_BYTES:
        raise BaseDataError(f"The name {name[:40]}... is longer than {MAX_NAME_BYTES} bytes. Choose a shorter one.")
    return name


def _is_file(file: Path) -> bool:
    try:
        return file.is_file()
    except OSError:  # such as a name that is too long for any file
        return False


def _free_name(name: str, others: dict[str, bytes], class_folder: Path) -> str:
    """Return a name that is free, such as ``image-2.jpg``: phones call every photograph the same."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122  (a Path takes "a.b.jpg" apart in the same way, with more steps)
    number = 1
    while name in others or os.path.lexists(class_folder / name):
        number += 1
        name = f"{_shortened(stem, f'-{number}{suffix}')}-{number}{suffix}"
    return name


def _shortened(stem: str, rest: str) -> str:
    while len(f"{stem}{rest}".encode()) > MAX_NAME_BYTES:
        stem = stem[:-1]
    return stem


def _holds(file: Path, content: bytes) -> bool:
    """Tell whether a file of the base images has some content."""
    try:
        return file.stat().st_size == len(content) and file.is_file() and file.read_bytes() == content
    except OSError:
        return False


def _taken(class_name: str, name: str) -> NameTakenError:
    return NameTakenError(
        f"{class_name} holds another image of the name {name}. Rename the file, or remove the other image first."
    )


def _link_classes(folder: Path, base_data: Path, *, touched: Container[str]) -> Path:
    """Make a folder with a link to each entry of the base data but some classes."""
    remove_preview(folder)
    preview = preview_path(folder)
    preview.mkdir(parents=True)
    try:
        with os.scandir(base_data) as entries:
            for entry in entries:
                if entry.name not in touched and not entry.name.startswith("."):
                    (preview / entry.name).symlink_to(Path(entry.path).absolute())
    except OSError as error:
        raise BaseDataError(f"{base_data} can't be read: {error.strerror}.", base_data) from error
    return preview


def _link_images(folder: Path, source: Path, target: Path, *, without: Sequence[str]) -> None:
    """Link to each visible entry of a class folder but some.

    The links lead through one to the class folder. So they are short, and lie in the folder itself: file systems make
    and remove thousands of long ones a hundred times slower.
    """
    left_out = {*without}
    class_link = folder / f"{_CLASS_LINK}{len(list(folder.glob(f'{_CLASS_LINK}*')))}"
    class_link.symlink_to(source.absolute())
    inside = f"../../{class_link.name}/"
    try:
        with os.scandir(source) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name not in left_out:
                    os.symlink(inside + entry.name, target / entry.name)  # noqa: PTH211  (a Path for each takes long)
    except OSError as error:
        raise BaseDataError(f"{source} can't be read: {error.strerror}.", source) from error
