"""What a console does not offer to a visitor, and why, in words."""

from __future__ import annotations

from inference_console.security.access import Visitor
from inference_console.settings import Settings

_RUNNER = "Whoever runs this console can start it"


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
    if settings.read_only:
        return f"This console is read-only. {_RUNNER} without --read_only."
    if settings.base_data is None:
        return f"This console knows no folder of reference images. {_RUNNER} with -data."
    if not settings.model_repository.is_dir():
        return f"This console has no model repository. {_RUNNER} with --model_repository."
    if not visitor.may_change:
        return f"{visitor.name} may classify, but not change the base set. Ask somebody who may."
    return ""


def switched_off(settings: Settings, visitor: Visitor, mode: str | None) -> list[tuple[str, str]]:
    """List what a console does not offer to a visitor, each with its reason."""
    offers = [("Changing the base set", why_no_change(settings, visitor, mode))]
    if mode != "classification":
        if settings.base_data is None:
            offers.append(("Pictures of reference images", f"{_RUNNER} with -data."))
        if settings.queries is None:
            offers.append(
                (
                    "Answers that a change would flip",
                    f"{_RUNNER} with --queries, a folder of images whose answers are compared.",
                )
            )
    return [(what, why) for what, why in offers if why]
