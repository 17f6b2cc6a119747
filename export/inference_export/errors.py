"""What can go wrong in an export; every message says what was wrong, where, and what to do."""

from __future__ import annotations

from pathlib import Path


class Terminated(SystemExit):
    """SIGTERM has arrived: no failure of the code that was running."""


class ExportError(Exception):
    """An export can't go on; nothing was replaced.

    Args:
        message: What was wrong, where, and what to do.
        path: The file or folder at fault.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class ResourcesError(ExportError):
    """The trained resources are missing, malformed, unsafe, or of another network."""


class BaseDataError(ExportError):
    """The base data can't serve as a base set."""


class ChangedError(ExportError):
    """A file was read twice, and was another the second time."""


class NetworkError(ExportError):
    """The network can't be made, or what it computes can't be served."""


class ParityError(ExportError):
    """The exported graph does not compute what PyTorch computes."""


class RepositoryError(ExportError):
    """The model repository can't be written there, or what lies in it does not belong together."""


class PrecisionError(ExportError):
    """The network can't be served in fewer bits: no images to check it with, or it loses too much."""
