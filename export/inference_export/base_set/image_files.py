"""Image files, read and decoded as the server does, a few at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from inference_export.base_set.decoding import Decoders
from inference_export.regular_files import FileReader

_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Where images come from during an export.

    Args:
        reader: Remembers what was read.
        decoder: The server's decoder.
        max_bytes: Longest file that is read.
    """

    reader: FileReader
    decoder: Decoders
    max_bytes: int

    def read(self, files: Sequence[Path]) -> tuple[list[bytes], list[str]]:
        """Read N files: their bytes, and N reasons, "" for a file that was read; one that was not is empty.

        Raises:
            ChangedError: A file was read before, and is another now.
        """
        contents, failures = [], []
        for file in files:
            try:
                contents.append(self.reader.read(file, self.max_bytes))
                failures.append("")
            except OSError as error:
                contents.append(b"")
                failures.append(error.strerror or "unreadable")
        return contents, failures

    def decode(self, files: Sequence[Path]) -> tuple[npt.NDArray[np.uint8], list[str]]:
        """Read and decode N >= 1 files to pixels, uint8 [N, S, S, 3], and N reasons, "" for a decoded file.

        Raises:
            ChangedError: A file was read before, and is another now.
        """
        batches, reasons = [], []
        for start in range(0, len(files), _BATCH):
            contents, failures = self.read(files[start : start + _BATCH])
            pixels, undecodable = self.decoder.decode(contents)
            batches.append(pixels)
            reasons += [failure or reason for failure, reason in zip(failures, undecodable, strict=True)]
        return np.concatenate(batches), reasons
