"""Images whose class is known: a folder for each class."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_client.command_line.formatting import first_few


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """An image file.

    Attributes:
        path: The file.
        truth: Name of the folder that it lies in, which is its class.
    """

    path: Path
    truth: str

    @property
    def name(self) -> str:
        """``class/file name``."""
        return f"{self.truth}/{self.path.name}"


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """What lies in a folder of class folders.

    Attributes:
        images: Those of one class side by side, sorted by class and file name.
        classes: Every class folder, sorted; some may be empty.
        notes: What was left out, and why; one sentence each.
    """

    images: Sequence[LabelledImage]
    classes: Sequence[str]
    notes: Sequence[str]


def read_labelled_images(folder: Path) -> LabelledImages:
    """List a folder with one sub-folder for each class, images in it.

    Hidden files, files beside the class folders and folders within them are left out, with a note. Whether a file is an
    image is for the server to say.

    Args:
        folder: The folder.

    Returns:
        Its images.

    Raises:
        OSError: A folder can't be listed.
    """
    images: list[LabelledImage] = []
    classes: list[str] = []
    left_out: dict[str, list[str]] = {}
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        reason = _hidden(entry.name) or (None if _is(entry.is_dir) else "beside the class folders")
        if reason is not None:
            left_out.setdefault(reason, []).append(entry.name)
            continue
        classes.append(entry.name)
        for file in sorted(os.scandir(entry.path), key=lambda file: file.name):
            reason = _hidden(file.name) or (
                None if _is(file.is_file) else "within a class folder, but not regular files"
            )
            if reason is None:
                images.append(LabelledImage(path=Path(file.path), truth=entry.name))
            else:
                left_out.setdefault(reason, []).append(f"{entry.name}/{file.name}")
    notes = [f"Left out, {reason}: {first_few(names)}." for reason, names in left_out.items()]
    return LabelledImages(images=images, classes=classes, notes=notes)


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link that leads in a circle
        return False


def _hidden(name: str) -> str | None:
    return "hidden" if name.startswith(".") else None
