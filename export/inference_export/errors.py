"""The errors of an export. Every message says what was found, what was expected, and what to do."""

from __future__ import annotations

from pathlib import Path


class Terminated(SystemExit):
    """Raised on SIGTERM to stop the program, not because something failed."""


class ExportError(Exception):
    """An export can't go on. Nothing was replaced.

    Args:
        message: What was found, what was expected, and what to do.
        path: The file or folder at fault; None: no single one.

    Attributes:
        path: The file or folder at fault; None: no single one.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class ResourcesError(ExportError):
    """The trained resources are missing, malformed or unsafe, or belong to another network."""


class BaseDataError(ExportError):
    """The base data can't serve as a base set."""


class ChangedError(ExportError):
    """A file changed between two reads."""


class NetworkError(ExportError):
    """The network can't be made, or its outputs can't be served."""


class ParityError(ExportError):
    """The exported graph's results differ from PyTorch's."""


class RepositoryError(ExportError):
    """The model repository can't be written, or its files do not belong together."""


class OverlappingChangeError(RepositoryError):
    """Another command has changed the repository meanwhile."""


class PrecisionError(ExportError):
    """The network can't be served in int8 or fp16: too few images to check it, or too high a loss."""
