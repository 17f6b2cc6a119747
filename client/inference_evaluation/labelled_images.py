"""Images whose class is known: a folder with one sub-folder for each class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_client.command_line.formatting import first_few


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """An image file.

    Attributes:
        path: The file.
        truth: The image's class, which is the name of its folder.
    """

    path: Path
    truth: str

    @property
    def name(self) -> str:
        """``class/file name``."""
        return f"{self.truth}/{self.path.name}"


@dataclass(frozen=True, kw_only=True)
class LabelledImages:
    """The contents of a folder of class folders.

    Attributes:
        images: All images, sorted by class and file name.
        classes: All class folders, sorted; some may be empty.
        notes: One sentence for each reason why entries were left out.
    """

    images: Sequence[LabelledImage]
    classes: Sequence[str]
    notes: Sequence[str]


def read_labelled_images(folder: Path) -> LabelledImages:
    """List the images in a folder of class folders.

    Leaves out hidden entries, files beside the class folders and folders inside them, with a note. The server decides
    whether a file is an image.

    Args:
        folder: The folder of class folders.

    Returns:
        The images, classes and notes.

    Raises:
        OSError: A folder can't be listed.
    """
    images: list[LabelledImage] = []
    classes: list[str] = []
    left_out: dict[str, list[str]] = {}
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            left_out.setdefault("hidden", []).append(entry.name)
        elif not entry.is_dir():
            left_out.setdefault("beside the class folders", []).append(entry.name)
        else:
            classes.append(entry.name)
            for file in sorted(entry.iterdir()):
                image = LabelledImage(path=file, truth=entry.name)
                if file.name.startswith("."):
                    left_out.setdefault("hidden", []).append(image.name)
                elif not file.is_file():
                    left_out.setdefault("within a class folder, but not regular files", []).append(image.name)
                else:
                    images.append(image)
    notes = [f"Left out, {reason}: {first_few(names)}." for reason, names in left_out.items()]
    return LabelledImages(images=images, classes=classes, notes=notes)
