"""The base images: a folder of reference images for each class."""

from __future__ import annotations

from collections.abc import Collection, Sequence
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
        classes: Class name to the class's image files.
        notes: Notes for the user, such as files left out.
        undecodable: Files that were left out because they do not decode, and why.
    """

    folder: Path
    classes: dict[str, list[Path]]
    notes: list[str] = field(default_factory=list)
    undecodable: dict[Path, str] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """All B base images, one class after another."""
        return [file for files in self.classes.values() for file in files]

    @property
    def names(self) -> list[str]:
        """``class/file name`` of each base image, in the order of ``files``."""
        return [self.name_of(file) for file in self.files]

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
    classes: dict[str, list[Path]] = {}
    for class_folder in class_folders:
        classes[class_folder.name], hidden_images = _entries(class_folder)
        hidden += hidden_images
        _check_class(class_folder, classes[class_folder.name])
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
            f"{len(undecodable)} of {len(base.files)} base images do not decode:\n  {lines}\n"
            f"  Mend or remove them, or leave them out with --skip_unreadable.",
            next(iter(undecodable)),
        )
    classes = {name: [file for file in files if file not in undecodable] for name, files in base.classes.items()}
    for name, files in classes.items():
        if not files:
            raise BaseDataError(
                f"{base.folder / name} holds no image that decodes:\n  {lines}\n  Add an image, or remove the folder.",
                base.folder / name,
            )
    notes = [*base.notes, f"base images left out, undecodable:\n  {lines}"]
    return replace(base, classes=classes, notes=notes, undecodable=undecodable)


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """List a folder's visible and hidden entries, sorted by name."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise BaseDataError(f"{folder} can't be read ({error.strerror}). Name another with -data.", folder) from error
    visible = [entry for entry in entries if not entry.name.startswith(".")]
    return visible, [entry for entry in entries if entry.name.startswith(".")]


def _check_class(folder: Path, files: Collection[Path]) -> None:
    if not files:
        raise BaseDataError(f"{folder} holds no image. Add some, or remove the folder.", folder)
    for path in (folder, *files):
        if not path.name.isprintable():
            raise BaseDataError(f"{str(path)!r}: this name is not printable UTF-8 text. Rename it.", path)
    for file in files:
        if file.is_dir():
            raise BaseDataError(
                f"{file} is a folder inside a class folder. Images must lie directly in the folder of their class. "
                f"Move them up, or remove the folder.",
                file,
            )
