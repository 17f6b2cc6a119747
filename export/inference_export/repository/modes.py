"""Classification or clustering: a repository changes its mode only if ``--mode`` says so."""

from __future__ import annotations

from pathlib import Path

from inference_export.errors import BaseDataError, RepositoryError
from inference_export.export_options import ExportOptions
from inference_export.repository.version_files import SETTINGS_FILE, read_settings
from inference_export.repository.versions import exported_version


def read_mode(repository: Path, version: int | None = None) -> str | None:
    """Read the mode of a version.

    Args:
        repository: The model repository.
        version: Number of a version; None: the one that the ensemble answers with.

    Returns:
        ``classification`` or ``clustering``; None if there is no such version, or its settings are damaged.
    """
    if version is None:
        exported = exported_version(repository)
        version = None if exported is None else exported.number
    try:
        return read_settings(repository / "cluster_head" / str(version) / SETTINGS_FILE).mode
    except RepositoryError:
        return None


def mode_change(before: str | None, after: str | None) -> str:
    """Say that the mode has changed; "" if it has not, or one of the two is not known."""
    if before is None or after is None or before == after:
        return ""
    return f"the mode has changed: {before} before, {after} now"


def require_mode(options: ExportOptions, mode: str, before: str | None) -> None:
    """Refuse an export in a mode that the user may not want.

    Args:
        options: The options of the export.
        mode: The mode that the base data lead to.
        before: The mode of the version in the repository; None: there is none.

    Raises:
        BaseDataError: ``--mode`` contradicts the base data.
        RepositoryError: The repository would change its mode, and ``--mode`` was not given.
    """
    no_base_data = options.base_data is None
    if options.mode not in (None, mode):
        raise BaseDataError(
            "--mode clustering needs base data, and none are named. Name their folder with -data."
            if no_base_data
            else f"--mode classification contradicts the base data {options.base_data}. Leave one of the two out.",
            options.base_data,
        )
    if options.mode is None and before not in (None, mode):
        cause = "no base data are named" if no_base_data else f"the base data {options.base_data} are named"
        remedy = "Name the base data with -data" if no_base_data else "Leave the base data out"
        raise RepositoryError(
            f"{options.model_repository} answers in {before} mode, and this export would change that to {mode}, since "
            f"{cause}.\n"
            f"  {remedy}, or say --mode {mode} to change the mode.",
            options.model_repository,
        )
