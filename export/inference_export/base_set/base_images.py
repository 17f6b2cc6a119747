"""The base images: a folder of reference images for each class."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from inference_client.command_line.formatting import first_few
from inference_export.class_names import equal_names
from inference_export.errors import BaseDataError

_SHOWN_FILES = 20


@dataclass(frozen=True, kw_only=True)
class BaseImages:
    """Base images by class. Classes and images are sorted by name.

    Attributes:
        folder: The folder of the base data.
        classes: Class name to the file names of the class's images.
        notes: Notes for the user, such as files left out.
        undecodable: Files that were left out because they do not decode, and why.
        rotated: ``class/file name`` of images that are not stored upright, and are not turned.
    """

    folder: Path
    classes: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)
    undecodable: dict[Path, str] = field(default_factory=dict)
    rotated: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number B of base images."""
        return sum(map(len, self.classes.values()))

    @property
    def names(self) -> Iterator[str]:
        """``class/file name`` of each base image, one class after another."""
        return (f"{class_name}/{name}" for class_name, names in self.classes.items() for name in names)

    def name(self, position: int) -> str:
        """Return the name at a position in ``names``, 0 to B - 1."""
        for class_name, names in self.classes.items():
            if position < len(names):
                return f"{class_name}/{names[position]}"
            position -= len(names)
        raise IndexError(position)

    @property
    def files(self) -> list[Path]:
        """The path of each base image, in the order of ``names``."""
        return [self.folder / name for name in self.names]

    def name_of(self, file: Path) -> str:
        """Return ``class/file name`` of a base image."""
        return f"{file.parent.name}/{file.name}"


def find_base_images(folder: Path) -> BaseImages:
    """List the base images, without reading any.

    Args:
        folder: The base data: a folder for each class, with the class's images inside. Hidden entries and files beside
            the class folders are left out with a note.

    Returns:
        The base images.

    Raises:
        BaseDataError: The folder is missing or empty, or holds no folder. A class is empty, or holds a folder. Two
            classes have the same name after Unicode normalization. A link leads nowhere. A name is not printable text.
    """
    visible, hidden = _entries(folder)
    if not visible:
        raise BaseDataError(
            f"{folder} is named as base data, and holds {'hidden entries only' if hidden else 'nothing'}. It must hold "
            f"a folder for each class. Is a volume not mounted there? For classification mode, leave -data out.",
            folder,
        )
    for entry in visible:
        if not entry.exists():  # the target may have been a class
            raise BaseDataError(f"{entry} is a link that leads nowhere. Mend or remove it.", entry)
    class_folders = [entry for entry in visible if entry.is_dir()]
    if not class_folders:
        raise BaseDataError(
            f"{folder} holds files but no folder. Make one folder for each class, with the class's images inside.",
            folder,
        )
    notes = [f"left out, beside the class folders: {entry}" for entry in visible if not entry.is_dir()]
    classes: dict[str, list[str]] = {}
    for class_folder in class_folders:
        classes[class_folder.name], hidden_images = _list_class(class_folder)
        hidden += hidden_images
    if same := equal_names(classes):
        raise BaseDataError(
            f"{folder} holds two class folders {same[0]!a} and {same[1]!a}, which are the same text in two spellings "
            f"(Unicode normalization). Move their images into one folder, or rename one.",
            folder,
        )
    notes += [f"left out, hidden: {entry}" for entry in hidden]
    return BaseImages(folder=folder, classes=classes, notes=notes)


def check_unknown_label(classes: Sequence[str], unknown_label: str | None, folder: Path) -> None:
    """Refuse classes that leave nothing to decide.

    Args:
        classes: The classes of the base set.
        unknown_label: Label of a query that no base image matches; None: there is none.
        folder: The base data, for the message.

    Raises:
        BaseDataError: There is only one class, and every query would get it.
    """
    if len({*classes, unknown_label} - {None}) == 1:
        raise BaseDataError(
            f"{folder} has only one class, {classes[0]}, so every query would get that label. Add another class, or "
            f"name a label for queries without a match with --unknown_label.",
            folder,
        )


def holds_anything(folder: Path) -> bool:
    """Tell whether a folder exists and holds an entry that is not hidden.

    Raises:
        BaseDataError: The folder exists, but can't be read.
    """
    return folder.is_dir() and bool(_entries(folder)[0])


def require_decodable(base: BaseImages, undecodable: dict[Path, str], *, skip: bool) -> BaseImages:
    """Leave out undecodable base images, or refuse them.

    Args:
        base: The base images.
        undecodable: Undecodable file to reason.
        skip: Leave the files out with a note, instead of failing.

    Returns:
        The other base images.

    Raises:
        BaseDataError: There are undecodable files and ``skip`` is off, or a class has no other image.
    """
    if not undecodable:
        return base
    reasons = [f"{file}: {reason}" for file, reason in undecodable.items()]
    lines = first_few(reasons, _SHOWN_FILES, separator="\n  ")
    if not skip:
        raise BaseDataError(
            f"{len(undecodable)} of {len(base)} base images do not decode:\n  {lines}\n"
            f"  Mend or remove them, or leave them out with --skip_unreadable.",
            next(iter(undecodable)),
        )
    left_out = {base.name_of(file) for file in undecodable}
    classes = {
        class_name: [name for name in names if f"{class_name}/{name}" not in left_out]
        for class_name, names in base.classes.items()
    }
    for name, files in classes.items():
        if not files:
            raise BaseDataError(
                f"{base.folder / name} holds no image that decodes:\n  {lines}\n  Add an image, or remove the folder.",
                base.folder / name,
            )
    notes = [*base.notes, f"base images left out, undecodable:\n  {lines}"]
    return replace(base, classes=classes, notes=notes, undecodable=undecodable)


def note_rotated(base: BaseImages, notes: Collection[Path]) -> BaseImages:
    """Note which base images are not stored upright, and are taken as they are stored.

    Args:
        base: The base images.
        notes: The files of which the server's preprocessing notes that.
    """
    rotated = [name for name in base.names if base.folder / name in notes] if notes else []
    if not rotated:
        return base
    lines = first_few(rotated, _SHOWN_FILES, separator="\n  ")
    note = (
        f"base images that are not stored upright, by their EXIF orientation, and are taken as stored: {len(rotated)}. "
        f"If the network was trained on upright images, export it with the orientation upright.\n  {lines}"
    )
    return replace(base, notes=[*base.notes, note], rotated=rotated)


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """List a folder's visible and hidden entries, sorted by name."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise _unreadable(folder, error) from error
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    return visible, [entry for entry in entries if entry.name.startswith(".")]


def _list_class(folder: Path) -> tuple[list[str], list[Path]]:
    """List the names of a class's images, and its hidden entries, sorted by name."""
    names, hidden, folders = [], [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    hidden.append(folder / entry.name)
                else:
                    names.append(entry.name)
                    if _is_folder(entry):
                        folders.append(entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from error
    if not names:
        found = f"no image but hidden files, such as {min(hidden).name}" if hidden else "no image"
        raise BaseDataError(f"{folder} holds {found}. Add an image, or remove the folder.", folder)
    for path in [folder, *(folder / name for name in sorted(names) if not name.isprintable())]:
        if not path.name.isprintable():
            raise BaseDataError(f"{str(path)!r}: this name is not printable UTF-8 text. Rename it.", path)
    if folders:
        raise BaseDataError(
            f"{folder / min(folders)} is a folder inside a class folder. Images must lie directly in the folder of "
            f"their class. Move them up, or remove the folder.",
            folder / min(folders),
        )
    return sorted(names), sorted(hidden)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in a circle, which does not decode
        return False


def _unreadable(folder: Path, error: OSError) -> BaseDataError:
    return BaseDataError(f"{folder} can't be read ({error.strerror}). Name another with -data.", folder)
