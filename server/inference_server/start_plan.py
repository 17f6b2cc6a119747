"""Plans a start: whether it exports first, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inference_export.base_set.base_images import holds_anything
from inference_export.errors import RepositoryError
from inference_export.export_options import ExportOptions
from inference_export.repository.provenance import what_changed
from inference_export.repository.reading import read_export

DEFAULT_RESOURCES = Path("/resources")
DEFAULT_BASE_DATA = Path("/data")


@dataclass(frozen=True, kw_only=True)
class StartPlan:
    """The steps before the server starts.

    Attributes:
        export: The export to make; None if the repository is served as it is.
        reason: The reason for the export, in words; "" without an export.
    """

    export: ExportOptions | None = None
    reason: str = ""


def default_resources() -> Path | None:
    """Return the default folder of trained resources; None if it does not exist."""
    return DEFAULT_RESOURCES if DEFAULT_RESOURCES.is_dir() else None


def plan_start(options: Mapping[str, Any]) -> StartPlan:
    """Plan a start.

    Args:
        options: The fields of ``ExportOptions``; if ``resources`` is None, the repository is served as it is.

    Returns:
        The plan: an export if the repository holds none, a damaged one, or one of other resources, data or options.
    """
    if options["resources"] is None:
        return StartPlan()
    wanted = ExportOptions(**options)
    if wanted.base_data is None and wanted.mode != "classification" and holds_anything(DEFAULT_BASE_DATA):
        wanted = replace(wanted, base_data=DEFAULT_BASE_DATA)
    try:
        export = read_export(wanted.model_repository)
    except RepositoryError as error:
        return StartPlan(export=wanted, reason=str(error))
    if export is None:
        return StartPlan(export=wanted, reason=f"{wanted.model_repository} holds no export")
    changes = what_changed(export.provenance, wanted)
    if not changes:
        return StartPlan()
    reason = f"changed since {wanted.model_repository} was exported: {', '.join(changes)}"
    return StartPlan(export=wanted, reason=reason)
