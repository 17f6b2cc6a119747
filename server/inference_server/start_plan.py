"""Plans a start: whether it exports first, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inference_export.base_set.base_images import find_base_images, holds_anything
from inference_export.changing import BaseSetOptions
from inference_export.errors import BaseDataError, RepositoryError
from inference_export.export_options import ExportOptions
from inference_export.repository.provenance import BASE_SET_CHANGES, what_changed
from inference_export.repository.reading import read_export

DEFAULT_RESOURCES = Path("/resources")
DEFAULT_BASE_DATA = Path("/data")


@dataclass(frozen=True, kw_only=True)
class StartPlan:
    """The steps before the server starts.

    Attributes:
        export: The export to make; None: no export is needed.
        change: The change of the base set to make instead; None: none is needed, or an export makes it.
        reason: The reason for the export or the change, in words; "" if the repository is served as it is.
        warning: Why the repository is served as it is although something may have changed; "" for no such reason.
    """

    export: ExportOptions | None = None
    change: BaseSetOptions | None = None
    reason: str = ""
    warning: str = ""


def default_resources() -> Path | None:
    """Return the default folder of trained resources; None if it does not exist."""
    return DEFAULT_RESOURCES if DEFAULT_RESOURCES.is_dir() else None


def default_base_data() -> Path | None:
    """Return the default folder of base images; None if it does not exist."""
    return DEFAULT_BASE_DATA if DEFAULT_BASE_DATA.is_dir() else None


def plan_start(options: Mapping[str, Any], *, watches: bool = False) -> StartPlan:
    """Plan a start.

    Args:
        options: The fields of ``ExportOptions``; if ``resources`` is None, the repository is served as it is.
        watches: Whether the base set will follow the folder. If the folder can't serve as a base set now, the server
            starts with the base set that the repository holds, and follows the folder later.

    Returns:
        The plan: an export if the repository holds none, a damaged one, or one of other resources or options; a change
        if only the base set would be another.
    """
    if options["resources"] is None:
        return StartPlan()
    return _plan(ExportOptions(**options), watches=watches)


def _plan(wanted: ExportOptions, *, watches: bool) -> StartPlan:
    if wanted.base_data is None and wanted.mode != "classification" and holds_anything(DEFAULT_BASE_DATA):
        wanted = replace(wanted, base_data=DEFAULT_BASE_DATA)
    try:
        export = read_export(wanted.model_repository)
    except RepositoryError as error:
        return StartPlan(export=wanted, reason=str(error))
    if export is None:
        return StartPlan(export=wanted, reason=f"{wanted.model_repository} holds no export")
    if watches and export.settings.mode == "clustering" and (obstacle := _obstacle(wanted.base_data)):
        return StartPlan(warning=f"{wanted.model_repository} is served as it is. {obstacle}")
    changes = what_changed(export.provenance, wanted)
    if not changes:
        return StartPlan()
    reason = f"changed since {wanted.model_repository} was exported: {', '.join(changes)}"
    if BASE_SET_CHANGES.issuperset(changes) and wanted.base_data is not None and export.settings.mode == "clustering":
        return StartPlan(change=_change(wanted), reason=reason)
    return StartPlan(export=wanted, reason=reason)


def _change(wanted: ExportOptions) -> BaseSetOptions:
    return BaseSetOptions(
        model_repository=wanted.model_repository,
        base_data=wanted.base_data,
        sim_thres=wanted.sim_thres,
        unknown_label=wanted.unknown_label or "",
        neighbors=wanted.neighbors,
        skip_unreadable=wanted.skip_unreadable,
        batch_size=wanted.batch_size,
        cache=wanted.cache,
    )


def _obstacle(base_data: Path | None) -> str:
    """Say why a folder can't serve as a base set; "" if it can, as far as can be told without reading the images."""
    try:
        if base_data is not None:
            find_base_images(base_data)
    except BaseDataError as error:
        return str(error)
    return ""
