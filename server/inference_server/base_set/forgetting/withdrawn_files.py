"""The files of images that are to be forgotten: found, hidden from the base set, and deleted at the very end."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference_client.command_line.formatting import first_few
from inference_export.errors import BaseDataError
from inference_server.base_set.image_folder import check_name, move

# In the base data, whose hidden entries are no classes. A class folder that holds hidden files alone would be refused.
HIDDEN_FOLDER = ".forgotten"
_SHOWN_HASH = 16
_SHOWN_FILES = 10


@dataclass(kw_only=True)
class WithdrawnFiles:
    """The files of images that are to be forgotten.

    Attributes:
        base_data: The base data, resolved.
        removed: The folder of removed images, resolved.
        in_folder: File of each base image, where it is or was before ``hide``, to ``class/file name``.
        copies: Other file of an image, such as one in the folder of removed images, to ``class/file name``.
        hashes: SHA-256 of each file, where it was found.
        links: Files outside the base data that links among the files lead to.
    """

    base_data: Path
    removed: Path
    in_folder: dict[Path, str]
    copies: dict[Path, str]
    hashes: dict[Path, bytes]
    links: list[Path]
    _hidden: dict[Path, Path] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """All files, where they are now."""
        return [self._hidden.get(file, file) for file in self.origins]

    @property
    def origins(self) -> list[Path]:
        """All files, where they were before ``hide``."""
        return [*self.copies, *self.in_folder]

    @property
    def names(self) -> set[str]:
        """``class/file name`` of each image that there is a file of."""
        return {*self.in_folder.values(), *self.copies.values()}

    def hide(self) -> None:
        """Move the files in the base data to ``HIDDEN_FOLDER``, so that no base set holds them from now on.

        A command that was killed leaves them where the next one finds them.

        Raises:
            OSError: A file can't be moved. All are back where they were.
        """
        try:
            for file in self._exposed():
                place = self.base_data / HIDDEN_FOLDER / self.hashes[file].hex()[:_SHOWN_HASH]
                self._hidden[file] = place / file.relative_to(self.base_data)
                self._hidden[file].parent.mkdir(parents=True, exist_ok=True)
                move(file, self._hidden[file])
                _remove_if_empty(file.parent)
        except BaseException:
            self.unhide()
            raise

    def _exposed(self) -> list[Path]:
        hidden = self.base_data / HIDDEN_FOLDER
        inside = (file for file in self.origins if self.base_data in file.parents and hidden not in file.parents)
        return sorted(file for file in inside if file not in self._hidden)

    def unhide(self) -> None:
        """Undo ``hide``."""
        for file, hidden in self._hidden.items():
            if os.path.lexists(hidden) and not os.path.lexists(file):
                file.parent.mkdir(exist_ok=True)
                move(hidden, file)
        self._hidden.clear()
        self._remove_empty_folders()

    def leaves_nothing(self) -> bool:
        """Tell whether no base image remains without these."""
        visible = (folder for folder in self.base_data.iterdir() if folder.is_dir() and not folder.name.startswith("."))
        remaining = (file for folder in visible for file in folder.iterdir() if not file.name.startswith("."))
        return not any(file not in self.in_folder for file in remaining)

    def delete(self) -> None:
        """Delete all files, and the folders that are empty then. What a killed command needs to go on goes last.

        Raises:
            OSError: A file can't be deleted.
        """
        hidden_last = sorted(self.files, key=lambda file: self.base_data / HIDDEN_FOLDER in file.parents)
        for file in hidden_last:
            file.unlink(missing_ok=True)
            _remove_if_empty(file.parent)
        self._remove_empty_folders()

    def _remove_empty_folders(self) -> None:
        for parent, _, _ in os.walk(self.base_data / HIDDEN_FOLDER, topdown=False):
            _remove_if_empty(Path(parent))


def find_files(base_data: Path, removed: Path, names: Sequence[str]) -> WithdrawnFiles:
    """Find the files of images in the base data and among removed images.

    Args:
        base_data: The base data, resolved.
        removed: The folder that ``base-set remove`` moves images to, resolved; it need not exist.
        names: ``class/file name`` of each image.

    Raises:
        BaseDataError: A name is no name of an image, or the base data are missing or empty. Another file has the
            content of one of the images.
        OSError: A file can't be read.
    """
    for name in names:
        check_name(name)
    if not base_data.is_dir() or not any(base_data.iterdir()):
        raise BaseDataError(
            f"{base_data} {'is empty' if base_data.is_dir() else 'is not a folder'}, so the images may be elsewhere. "
            f"Is a volume not mounted there? Name the folder of base images with -data.",
            base_data,
        )
    in_folder: dict[Path, str] = {}
    copies: dict[Path, str] = {}
    hidden: dict[Path, Path] = {}
    for name in names:
        file = base_data / name
        if file.is_file():
            in_folder[file] = name
        for left in _hidden_files(base_data, name):  # by a command that was killed
            if file in in_folder:
                copies[left] = name
            else:
                in_folder[file], hidden[file] = name, left
        half_copied = _half_copied(name)
        places = (removed / name, base_data / half_copied, *_hidden_files(base_data, half_copied))
        copies |= {path: name for path in places if path.is_file()}
    found = copies | {hidden.get(file, file): name for file, name in in_folder.items()}
    hashes = {file: _hash(file) for file in found}
    others = _same_content(base_data, removed, hashes)
    if visible := [str(path) for path in others if not _is_hidden(path, base_data)]:
        lines = first_few(visible, _SHOWN_FILES, separator="\n  ")
        raise BaseDataError(
            f"these files have the same content as images that are to be forgotten:\n  {lines}\n"
            f"  Name them as well, as class/file, or delete them first.",
            base_data,
        )
    name_of = {hashes[file]: name for file, name in found.items()}
    return WithdrawnFiles(
        base_data=base_data,
        removed=removed,
        in_folder=in_folder,
        copies=copies | {path: name_of[content] for path, content in others.items()},
        hashes=hashes | others,
        links=sorted({file.resolve() for file in found if file.is_symlink()} - found.keys()),
        _hidden=hidden,
    )


def _hidden_files(base_data: Path, name: str) -> list[Path]:
    folder = base_data / HIDDEN_FOLDER
    return [each / name for each in sorted(folder.iterdir()) if (each / name).is_file()] if folder.is_dir() else []


def _half_copied(name: str) -> str:
    """Return the name that ``base-set add`` gives to an image until it is copied; a killed one leaves it."""
    class_name, _, file_name = name.partition("/")
    return f"{class_name}/.{file_name}.new"


def _is_hidden(file: Path, base_data: Path) -> bool:
    return base_data in file.parents and any(part.startswith(".") for part in file.relative_to(base_data).parts)


def _hash(file: Path) -> bytes:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


def _same_content(base_data: Path, removed: Path, hashes: dict[Path, bytes]) -> dict[Path, bytes]:
    """List the other files of the two folders that have the content of one of the files, with their hashes."""
    sizes = {path.stat().st_size for path in hashes}
    paths = (Path(parent, name) for folder in (base_data, removed) for parent, _, names in os.walk(folder)
             for name in names)  # fmt: skip
    same_size = [path for path in paths if path not in hashes and path.is_file() and path.stat().st_size in sizes]
    return {path: content for path in sorted(same_size) if (content := _hash(path)) in hashes.values()}


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
