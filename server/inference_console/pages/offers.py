"""What a console does not offer to a visitor, and why, in words."""

from __future__ import annotations

from inference_console.base_set.changes import RUNNER, why_impossible
from inference_console.security.access import Visitor
from inference_console.settings import Settings


def why_no_change(settings: Settings, visitor: Visitor, mode: str | None) -> str:
    """Say why a visitor may not change the base set.

    Args:
        settings: What the console was started with.
        visitor: Who asks.
        mode: The mode of the version that answers; None: unknown.

    Returns:
        The reason; "" if the visitor may.
    """
    if mode == "classification":
        return "This server has no reference images: it answers with the network's own estimate."
    if reason := why_impossible(settings):
        return reason
    if not visitor.may_change:
        return f"{visitor.name} may classify, but not change the base set. Ask somebody who may."
    return ""


def switched_off(settings: Settings, visitor: Visitor, mode: str | None) -> list[tuple[str, str]]:
    """List what a console does not offer to a visitor, each with its reason."""
    offers = [("Changing the base set", why_no_change(settings, visitor, mode))]
    if mode != "classification":
        if settings.base_data is None:
            offers.append(("Pictures of reference images", f"{RUNNER} with -data."))
        if settings.queries is None:
            offers.append(
                (
                    "Comparing answers before a change",
                    f"{RUNNER} with --queries, a folder of images whose answers are compared.",
                )
            )
    return [(what, why) for what, why in offers if why]
