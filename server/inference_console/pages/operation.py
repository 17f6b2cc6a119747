"""The page of a change or a check: its progress, its findings, and the way on or back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse

from inference_console.base_set.operations import Operation, State
from inference_console.base_set.stored import CLOSER, CONFLICT, TWIN, Doubt, NoBaseSetError
from inference_console.base_set.thumbnails import SIZE_PX
from inference_console.console import Console
from inference_console.pages.base_set import in_words

SHOWN_FLIPS = 100
SHOWN_NAMES = 200
_RARE = 0.05


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What a check says of an image that would come or go.

    Attributes:
        name: ``class/file name``.
        is_new: Whether it is not among the base images yet.
        reasons: What is doubtful about it, in words; empty if nothing is.
    """

    name: str
    is_new: bool
    reasons: list[str]


async def render(console: Console, request: Request, operation: Operation) -> HTMLResponse:
    """Render an operation."""
    result = operation.result or {}
    values: dict[str, Any] = {}
    if operation.state is State.DONE and operation.command == "check":
        values = _checked(operation, result) | {"version_now": await _version_now(console)}
    return console.pages.render(
        request,
        "operation",
        operation=operation,
        may_change=console.access.require(request).may_change,
        result=result,
        size_px=SIZE_PX,
        has_thumbnails=console.settings.base_data is not None,
        is_kept=console.changes.is_kept(operation),
        confirmed=console.changes.confirmed(operation),
        check=console.changes.check_of(operation),
        can_roll_back=await _can_roll_back_to(console, operation),
        **values,
    )


def _checked(operation: Operation, result: Mapping[str, Any]) -> dict[str, Any]:
    reasons = _reasons(result)
    own = {*operation.names}
    new = {*result["added"], *result["replaced"]}
    queries = result["queries"]
    return {
        "findings": [
            Finding(name=name, is_new=name in new, reasons=reasons.get(name, []))
            for name in operation.names[:SHOWN_NAMES]
        ],
        "doubtful": sum(name in reasons for name in operation.names),
        "undecodable": [name for name in operation.names if name in result["undecodable"]],
        "others": [
            (what, [name for name in result[what] if name not in own]) for what in ("added", "removed", "replaced")
        ],
        "alone": any(result["base_images_after"].get(name.partition("/")[0]) == 1 for name in operation.names),
        "new": new,
        "flips": [] if queries is None else queries["flips"][:SHOWN_FLIPS],
        "more_flips": 0 if queries is None else max(0, len(queries["flips"]) - SHOWN_FLIPS),
        "judgement": _judgement(queries),
        "stay_wrong": [
            image for image in result["new_images"] if image["after"]["label"] != image["image"].partition("/")[0]
        ],
        "rows": [
            (name, result["base_images_before"].get(name, 0), result["base_images_after"].get(name, 0))
            for name in sorted({*result["base_images_before"], *result["base_images_after"]})
            if result["base_images_before"].get(name, 0) != result["base_images_after"].get(name, 0)
        ],
    }


def _reasons(result: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the findings of a check by ``class/file name``, in words."""
    found: dict[str, list[str]] = {name: [f"does not decode: {why}"] for name, why in result["undecodable"].items()}
    doubts: dict[str, list[Doubt]] = {}
    for entry in result["closer_to_another_class"]:
        doubt = Doubt(
            kind=CLOSER,
            other=entry["other_class"],
            similarity=entry["other_similarity"],
            own_similarity=entry["own_similarity"],
        )
        doubts.setdefault(entry["image"], []).append(doubt)
    for kind, key in ((CONFLICT, "label_conflicts"), (TWIN, "near_duplicates")):
        for pair in result[key]:
            for image, twin in (pair["images"], pair["images"][::-1]):
                doubts.setdefault(image, []).append(Doubt(kind=kind, other=twin, similarity=pair["similarity"]))
    for image, all_doubts in doubts.items():
        found.setdefault(image, []).extend(in_words(all_doubts))
    for image in result["rotated"]:
        found.setdefault(image, []).append("not stored upright, and taken as it is stored")
    return found


def _judgement(queries: Mapping[str, Any] | None) -> str:
    """Say whether a change makes the answers to the queries better."""
    if queries is None:
        return ""
    count, before, after = queries["compared"], queries["right_before"], queries["right_after"]
    if before is None:
        return f"{len(queries['flips'])} of {count} queries would get another label."
    counts = f"Of {count} queries, {before} get the right label now; {after} would get it then."
    if before == after:
        return counts
    verdict = "better" if after > before else "worse"
    chance = (
        f"That is {verdict} than chance would explain"
        if queries["p_value"] < _RARE
        else "Chance alone may explain that"
    )
    return f"{counts} {chance} (McNemar's exact test: p = {queries['p_value']:.2g})."


async def _version_now(console: Console) -> int | None:
    """Return the version that answers; None: it is not known."""
    try:
        return (await console.stored.read()).version
    except NoBaseSetError:
        return None


async def _can_roll_back_to(console: Console, operation: Operation) -> int | None:
    """Return the version that a rollback after a change would go back to; None: there is none, or more has changed."""
    result = operation.result or {}
    if operation.state is not State.DONE or operation.command not in {"add", "remove"}:
        return None
    try:
        stored = await console.stored.read()
    except NoBaseSetError:
        return None
    before: int = result["version_before"]
    return before if stored.version == result["version"] != before and stored.has_older else None
