"""The result of ``base-set forget``, as text for people and as values for JSON."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from inference_client.command_line.formatting import table_lines
from inference_server.base_set.forgetting.forgetting import FOLDER, IMAGE_FILE, Forgotten, Looked
from inference_server.base_set.report import printable_line, served_text
from inference_server.errors import ServerError

_INDENT = "  "


def forgotten_json(forgotten: Forgotten) -> dict[str, Any]:
    """Return what was forgotten, and where, as values for JSON."""
    return {
        "repository": str(forgotten.repository),
        "images": forgotten.images,
        "version": forgotten.version,
        "version_before": forgotten.before,
        "servers": forgotten.servers,
        "looked_at": [
            {"place": each.kind, "file": str(each.file), "found": list(each.found), "done": each.done or None}
            for each in forgotten.looked
        ],
        "remaining": [{"file": str(place.file), "found": list(place.found)} for place in forgotten.remaining],
        "out_of_reach": forgotten.out_of_reach,
    }


def forgotten_text(forgotten: Forgotten) -> str:
    """Return what was forgotten, and where, as lines of text."""
    images = ", ".join(forgotten.images)
    version = f"version {forgotten.version}"
    if forgotten.version != forgotten.before:
        version += f", in place of {forgotten.before}"
    lines = [
        f"{'still holding something of' if forgotten.remaining else 'forgotten'}: {images}",
        f"{version}; {served_text(forgotten.servers)}",
        "",
        "looked at:",
        *_looked_lines(forgotten),
        "",
        "out of reach, for you to look after:",
        *(f"{_INDENT}{each}" for each in forgotten.out_of_reach),
    ]
    return "\n".join(map(printable_line, lines))


def require_nothing_remains(forgotten: Forgotten) -> None:
    """Fail if something of the images remains.

    Raises:
        ServerError: It names every file, and what to do.
    """
    if forgotten.remaining:
        lines = [f"{_INDENT}{place.file}: {', '.join(place.found)}" for place in forgotten.remaining]
        raise ServerError(
            "\n".join([
                "something of the images is still there:",
                *map(printable_line, lines),
                "  Delete files of your own among these, restart inference-server if shared memory is named, and run "
                "the same command again. The image files stay hidden until then.",
            ])
        )  # fmt: skip


def _looked_lines(forgotten: Forgotten) -> Iterator[str]:
    for kind, group in groupby(sorted(forgotten.looked, key=_order), key=lambda each: each.kind):
        looked = list(group)
        holding = sum(bool(each.found) for each in looked)
        yield f"{_INDENT}{kind}: {holding} of {len(looked)} with something of the images"
        rows = [(str(each.file), ", ".join(each.found) or "nothing", each.done) for each in looked]
        yield from (line.rstrip() for line in table_lines(rows, indent=2 * _INDENT))


def _order(looked: Looked) -> tuple[bool, str]:
    return looked.kind not in (FOLDER, IMAGE_FILE), looked.kind
