"""Keeps exports from removing the version that is served."""

from __future__ import annotations

import contextlib
from pathlib import Path

from inference_export.repository.locks import hold_version
from inference_export.repository.modes import mode_change, read_mode


class HeldVersion:
    """Keeps exports from removing one version of a repository.

    Args:
        repository: The model repository.
    """

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._version: int | None = None
        self._mode: str | None = None
        self._hold = contextlib.ExitStack()

    def change(self, version: int) -> str:
        """Hold a version and release the previous one.

        Args:
            version: The version that is served now.

        Returns:
            The change in words; "" for the first version, or if there is no change.
        """
        before, mode_before = self._version, self._mode
        if version == before:
            return ""
        hold = contextlib.ExitStack()
        with contextlib.suppress(OSError):  # somebody has removed the version already
            hold.enter_context(hold_version(self._repository, version))
        self._hold.close()
        self._version, self._mode, self._hold = version, read_mode(self._repository, version), hold
        if before is None:
            return ""
        modes = mode_change(mode_before, self._mode)
        return f"version {version} is served, in place of {before}{modes and '; '}{modes}"
