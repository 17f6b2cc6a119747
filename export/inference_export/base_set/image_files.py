"""Reading image files, and decoding them as the server does."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inference_export.base_set.decoding import (
    DEFAULT_GEOMETRY,
    Decoders,
    hash_preprocessing,
    open_decoder,
    read_note,
)
from inference_export.regular_files import FileReader
from inference_export.template import template_directory

MAX_KEPT_BYTES = 2**28  # of decoded pixels: 600 images at S = 384
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Reads and decodes image files, and keeps up to ``MAX_KEPT_BYTES`` of decoded pixels.

    Attributes:
        reader: Reads the files.
        start_decoder: Starts the server's decoder, or returns the one that was started.
        max_bytes: Longest file that is read.
        decoding: Name of this way to decode: a hash of the code and the settings.
        read_note: Returns what there is to know about a file that decodes; "" for nothing.
        notes: Each file that was read or decoded and of which there is something to know, and what.
    """

    reader: FileReader
    start_decoder: Callable[[], Decoders]
    max_bytes: int
    decoding: str
    read_note: Callable[[bytes], str]
    notes: dict[Path, str] = field(default_factory=dict)
    _kept: dict[Path, npt.NDArray[np.uint8]] = field(default_factory=dict)

    def content_key(self, file: Path) -> bytes:
        """Return the SHA-256 of the bytes that were read from a file.

        Raises:
            KeyError: The file was never read.
        """
        return bytes.fromhex(self.reader.sha256(file))

    def find_undecodable(self, files: Sequence[Path], known: Container[bytes] = ()) -> dict[Path, str]:
        """Read files, and decode those whose content is not known to decode.

        Args:
            files: The files.
            known: Content keys of images that decode.

        Returns:
            Undecodable or unreadable file to reason.

        Raises:
            ChangedError: A file has changed since it was read.
        """
        contents, failures = self._read(files)
        unknown = [file for file in contents if self.content_key(file) not in known]
        for file in contents.keys() - unknown:
            if note := self.read_note(contents[file]):
                self.notes[file] = note
        _, reasons = self._decode(unknown, contents)
        return failures | {file: reason for file, reason in zip(unknown, reasons, strict=True) if reason}

    def decode(self, files: Sequence[Path]) -> tuple[npt.NDArray[np.uint8], list[str]]:
        """Decode files. Files whose pixels were kept are not read again.

        Args:
            files: The files, N of them, at least 1.

        Returns:
            Pixels, uint8 [N, S, S, 3], and N reasons, "" for a decoded file.

        Raises:
            ChangedError: A file has changed since it was read.
        """
        batches, reasons = [], []
        for start in range(0, len(files), _BATCH):
            batch = files[start : start + _BATCH]
            missing = [file for file in batch if file not in self._kept]
            contents, failures = self._read(missing)
            decoded, undecodable = self._decode(missing, contents)
            pixels = dict(zip(missing, decoded, strict=True))
            batches.append(np.stack([pixels[file] if file in pixels else self._kept[file] for file in batch]))
            reason_of = dict(zip(missing, undecodable, strict=True)) | failures
            reasons += [reason_of.get(file, "") for file in batch]
        return np.concatenate(batches), reasons

    def _read(self, files: Sequence[Path]) -> tuple[dict[Path, bytes], dict[Path, str]]:
        """Return the content of each file that can be read, and the reason for each other file."""
        contents: dict[Path, bytes] = {}
        failures: dict[Path, str] = {}
        for file in files:
            try:
                contents[file] = self.reader.read(file, self.max_bytes)
            except OSError as error:
                failures[file] = error.strerror or "unreadable"
        return contents, failures

    def _decode(self, files: Sequence[Path], contents: dict[Path, bytes]) -> tuple[npt.NDArray[np.uint8], list[str]]:
        if not files:
            return np.empty((0, 0, 0, 3), np.uint8), []
        results = self.start_decoder().decode([contents.get(file, b"") for file in files])
        pixels, reasons = results.pixels, results.reasons
        self.notes.update({file: note for file, note in zip(files, results.notes, strict=True) if note})
        for file, image, reason in zip(files, pixels, reasons, strict=True):
            if not reason and (len(self._kept) + 1) * image.nbytes <= MAX_KEPT_BYTES:
                self._kept[file] = image.copy()
        return pixels, reasons


@contextlib.contextmanager
def open_image_files(
    reader: FileReader, *, image_size: int, decode: str, limits: Any, geometry: Any = DEFAULT_GEOMETRY
) -> Iterator[ImageFiles]:
    """Read and decode image files as the server does. The decoders start with the first file, and end with the context.

    Args:
        reader: Reads the files.
        image_size: Side S of the decoded images in pixels.
        decode: ``exact`` or ``reduced``: how large JPEGs are decoded.
        limits: The server's ``Limits``.
        geometry: The server's ``Geometry``.

    Yields:
        The reader. It raises ``DecodingError`` if the system refuses to start a process.
    """
    source = hash_preprocessing(template_directory() / "preprocess" / "1", geometry._asdict())
    settings = f"{source} {image_size} {decode} {tuple(limits)}"
    with contextlib.ExitStack() as stack:
        yield ImageFiles(
            reader=reader,
            start_decoder=cache(lambda: stack.enter_context(open_decoder(image_size, decode, limits, geometry))),
            max_bytes=limits.file_bytes,
            decoding=hashlib.sha256(settings.encode()).hexdigest()[:32],
            read_note=partial(read_note, geometry=geometry, limits=limits),
        )
