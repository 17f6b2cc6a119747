"""Which image files the arguments of ``classify -l`` name: files, folders and patterns."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_client.command_line.formatting import first_few, printable

# Which files of a folder are images. Whether the server decodes one is the server's to say.
IMAGE_ENDINGS = (
    *(".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm"),
    *(".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)


class PathError(Exception):
    """An argument names no image; the message says what to give instead."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The image files that arguments name.

    Attributes:
        files: The files, in the arguments' order; those of one folder or pattern are sorted.
        left_out: How many files of folders are no images, by the ending of their names.
    """

    files: Sequence[str]
    left_out: Counter[str]

    def left_out_text(self) -> str:
        """Say how many files were left out; empty if none were.

        >>> Listing(files=[], left_out=Counter({".txt": 2})).left_out_text()
        '2 files were left out, because their names do not end as those of images: 2 .txt'
        """
        count = self.left_out.total()
        if not count:
            return ""
        were, their = ("files were", "their names do") if count > 1 else ("file was", "its name does")
        of_images = "those of images" if count > 1 else "an image's"
        return f"{count:,} {were} left out, because {their} not end as {of_images}: {_endings(self.left_out)}"


def list_images(arguments: Sequence[str], *, each_once: bool) -> Listing:
    """Find the image files that arguments name.

    An argument is a file, whatever its name; a folder, for the images in it at any depth; or a pattern such as
    ``photos/**/*.jpg``, which stands for what it matches. Names that begin with a dot are found only if an argument
    names them.

    Args:
        arguments: At least one.
        each_once: Whether a file that is named twice is listed once. With a folder or a pattern it always is.

    Raises:
        PathError: An argument names no image, or can't be read.
    """
    left_out: Counter[str] = Counter()
    files: list[str] = []
    for argument in arguments:
        if os.path.isfile(argument):  # noqa: PTH113  (a Path would change how the name is written)
            found = [_readable(argument)]
        else:
            each_once = True
            found = list(_expanded(argument, left_out))
        files += found
    if each_once:
        first: dict[str, str] = {}
        for file in files:
            first.setdefault(os.path.abspath(file), file)  # noqa: PTH100
        files = list(first.values())
    return Listing(files=files, left_out=left_out)


def _expanded(argument: str, left_out: Counter[str]) -> Iterator[str]:
    if os.path.isdir(argument):  # noqa: PTH112
        others: Counter[str] = Counter()
        images = list(_images_in(argument, others))
        if not images:
            holds = f"only other files: {_endings(others)}" if others else "no files"
            raise PathError(
                f"folder {printable(argument)!r} holds no images, but {holds}. Name a folder of images, whose names "
                "end in .jpg, .png and the like, or the files themselves."
            )
        left_out += others
        yield from images
    elif os.path.lexists(argument):
        reason = "is a link to nothing" if not os.path.exists(argument) else "is no regular file"  # noqa: PTH110
        raise PathError(f"{printable(argument)!r} {reason}: name a file, a folder or a pattern.")
    elif glob.has_magic(argument):
        matches = sorted(glob.glob(argument, recursive=True))  # noqa: PTH207  (Path.glob takes no absolute pattern)
        files = [match for match in matches if os.path.isfile(match)]  # noqa: PTH113
        folders = [match for match in matches if os.path.isdir(match)]  # noqa: PTH112
        in_folders = [] if "**" in argument else [image for folder in folders for image in _images_in(folder, left_out)]
        if not files and not in_folders:
            matched = f"{len(folders):,} folders without images" if folders else "nothing"
            raise PathError(
                f"the pattern {printable(argument)!r} matches {matched}. In a pattern, * stands for any part of a name "
                "and ** for folders at any depth, for example 'photos/**/*.jpg'."
            )
        yield from map(_readable, files)
        yield from in_folders
    elif "://" in argument:
        raise PathError(f"{printable(argument)!r} is an address: download the image, and name its file.")
    else:
        raise PathError(f"{printable(argument)!r} does not exist. Name a file, a folder or a pattern.")


def _images_in(folder: str, left_out: Counter[str]) -> Iterator[str]:
    for parent, folders, names in os.walk(folder, onerror=_refuse_folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if name.startswith("."):
                continue
            path = os.path.join(parent, name)  # noqa: PTH118
            ending = Path(name).suffix.lower()
            if ending not in IMAGE_ENDINGS:
                left_out[ending] += 1
            elif os.path.isfile(path):  # noqa: PTH113  (no pipe, and no link to nothing)
                yield path


def _refuse_folder(error: OSError) -> None:
    raise PathError(
        f"folder {printable(str(error.filename))!r} can't be read: {error.strerror}. Allow it, or name other folders."
    ) from error


def _readable(file: str) -> str:
    if not os.access(file, os.R_OK):
        raise PathError(f"file {printable(file)!r} is not readable: allow it, or leave the file out.")
    return file


def _endings(counts: Counter[str]) -> str:
    return first_few(
        [f"{count:,} {printable(ending) or 'without ending'}" for ending, count in counts.most_common()], 5
    )
