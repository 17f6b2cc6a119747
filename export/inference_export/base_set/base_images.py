"""The base set: reference images in one folder a class."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from inference_export.class_names import equal_names
from inference_export.errors import BaseDataError

_SHOWN_FILES = 20


@dataclass(frozen=True, kw_only=True)
class BaseImages:
    """Base images by class; classes and images sorted by name.

    Args:
        folder: The base data.
        classes: Class name to its image files.
        notes: What was left out, in words.
    """

    folder: Path
    classes: dict[str, list[Path]]
    notes: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[Path]:
        """All B base images, one class after another."""
        return [file for files in self.classes.values() for file in files]

    @property
    def names(self) -> list[str]:
        """``class/file name`` of each of ``files``."""
        return [f"{name}/{file.name}" for name, files in self.classes.items() for file in files]


def find_base_images(folder: Path | None) -> BaseImages | None:
    """List the base images, without decoding any.

    Args:
        folder: The base data: a folder for each class, images inside. Hidden entries, and files beside the class
            folders, are left out with a note.

    Returns:
        The base set; None (classification mode) where ``folder`` is None.

    Raises:
        BaseDataError: The folder is missing or empty, images lie beside class folders only, a class is empty, two
            classes have the same name after Unicode normalization, an entry is no file, a link leads nowhere, or a name
            is not valid text.
    """
    if folder is None:
        return None
    visible, hidden = _entries(folder)
    if not visible:
        raise BaseDataError(
            f"{folder} is named as base data, and holds {'hidden entries only' if hidden else 'nothing'}. Is a volume "
            f"not mounted there? It must hold a folder for each class; for classification mode leave -data out.",
            folder,
        )
    for entry in visible:
        if not entry.exists():  # it may have been a class
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
            f"(Unicode normalization). Put their images into one, or rename one.",
            folder,
        )
    notes += [f"left out, hidden: {entry}" for entry in hidden]
    return BaseImages(folder=folder, classes=classes, notes=notes)


def holds_anything(folder: Path) -> bool:
    """Say whether a folder is there and holds an entry that is not hidden.

    Raises:
        BaseDataError: The folder is there, and can't be read.
    """
    return folder.is_dir() and bool(_entries(folder)[0])


def require_readable(base: BaseImages, unreadable: dict[Path, str], *, skip: bool) -> BaseImages:
    """Decide what becomes of base images that do not decode.

    Args:
        base: The base set.
        unreadable: File to reason.
        skip: Leave them out with a note, instead of failing.

    Returns:
        The base set without them.

    Raises:
        BaseDataError: There are some and ``skip`` is off, or a class has no other image.
    """
    if not unreadable:
        return base
    listed = [f"{file}: {reason}" for file, reason in unreadable.items()]
    lines = "\n  ".join(
        [*listed[:_SHOWN_FILES], *([f"and {len(listed) - _SHOWN_FILES} more"] * (len(listed) > _SHOWN_FILES))]
    )
    if not skip:
        raise BaseDataError(
            f"{len(unreadable)} of {len(base.files)} base images do not decode:\n  {lines}\n"
            f"  Mend or remove them, or leave them out with --skip_unreadable.",
            next(iter(unreadable)),
        )
    classes = {name: [file for file in files if file not in unreadable] for name, files in base.classes.items()}
    for name, files in classes.items():
        if not files:
            raise BaseDataError(f"{base.folder / name} holds no image that decodes:\n  {lines}", base.folder / name)
    return BaseImages(
        folder=base.folder, classes=classes, notes=[*base.notes, f"undecodable base images left out:\n  {lines}"]
    )


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise BaseDataError(f"{folder} can't be read ({error.strerror}).", folder) from error
    hidden = [entry for entry in entries if entry.name.startswith(".")]
    return [entry for entry in entries if entry not in hidden], hidden


def _check_class(folder: Path, files: list[Path]) -> None:
    if not files:
        raise BaseDataError(f"{folder} holds no image. Add some, or remove the folder.", folder)
    for path in (folder, *files):
        if not path.name.isprintable():
            raise BaseDataError(f"{str(path)!r}: this name is not printable UTF-8 text. Rename it.", path)
    for file in files:
        if file.is_dir():
            raise BaseDataError(
                f"{file} is a folder inside a class folder. Move its images up, or remove it: images lie directly in "
                f"the folder of their class.",
                file,
            )
