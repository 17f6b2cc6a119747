"""The places of the demonstration's files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MODES = ("clustering", "classification")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The folders and files under the demonstration's folder.

    Attributes:
        out: The demonstration's folder; the demonstration may replace anything in it.
    """

    out: Path

    @property
    def resources(self) -> Path:
        """The trained resources, as ``export-repository -r`` takes them."""
        return self.out / "resources"

    def part(self, name: str) -> Path:
        """Return the folder of the ``train``, ``base`` or ``query`` images, with one sub-folder for each class."""
        return self.out / name

    def repository(self, mode: str) -> Path:
        """Return the model repository of a mode in ``MODES``."""
        return self.out / f"model_repository-{mode}"

    def log(self, mode: str) -> Path:
        """Return the file with tritonserver's output."""
        return self.out / f"tritonserver-{mode}.log"
