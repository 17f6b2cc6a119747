"""Classification or clustering: a repository changes from one to the other only where that was said."""

from __future__ import annotations

from pathlib import Path

from inference_export.errors import BaseDataError, RepositoryError
from inference_export.export_options import ExportOptions
from inference_export.repository.version_files import read_settings
from inference_export.repository.versions import exported_version


def read_mode(repository: Path, version: int | None = None) -> str | None:
    """Read whether a version answers in ``classification`` or ``clustering`` mode.

    Args:
        repository: The model repository.
        version: A version; None: the one that the ensemble answers with.

    Returns:
        The mode; None where no such version lies, or its settings are damaged.
    """
    version = exported_version(repository) if version is None else version
    try:
        settings = read_settings(repository / "cluster_head" / str(version) / "settings.json")
    except RepositoryError:
        return None
    return str(settings["mode"])


def mode_change(before: str | None, after: str | None) -> str:
    """Say in words that a mode has changed; "" where it has not, or is not known."""
    if before is None or after is None or before == after:
        return ""
    return f"the mode has changed: {before} before, {after} now"


def require_mode(options: ExportOptions, mode: str, before: str | None) -> None:
    """Refuse a mode that was not asked for.

    Args:
        options: What was asked for.
        mode: The mode that follows from the base data.
        before: The mode of the version that lies in the repository; None: there is none.

    Raises:
        BaseDataError: ``--mode`` contradicts the base data.
        RepositoryError: The repository would change its mode, and ``--mode`` was not given.
    """
    unnamed = mode == "classification"
    if options.mode not in (None, mode):
        raise BaseDataError(
            "--mode clustering needs base data, and none are named. Name their folder with -data."
            if unnamed
            else f"--mode classification contradicts the base data {options.base_data}. Leave one of the two out.",
            options.base_data,
        )
    if options.mode is None and before not in (None, mode):
        found = "no base data are named" if unnamed else f"the base data {options.base_data} are named"
        remedy = "Name the base data with -data" if unnamed else "Leave the base data out"
        raise RepositoryError(
            f"{options.model_repository} answers in {before} mode, and this export would change that to {mode}, since "
            f"{found}.\n"
            f"  {remedy}, or say --mode {mode} if the mode is to change.",
            options.model_repository,
        )
