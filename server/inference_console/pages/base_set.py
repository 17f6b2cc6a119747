"""The pages of the base set: its classes side by side, one class, and forgetting images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse

from inference_console.base_set.stored import CLOSER, CONFLICT, TWIN, Doubt, NoBaseSetError, Stored
from inference_console.base_set.thumbnails import SIZE_PX
from inference_console.console import Console
from inference_console.pages.offers import why_no_change
from inference_console.problems import ProblemError

CLASSES_ON_A_PAGE = 24
IMAGES_OF_A_CLASS = 12  # on the page of all classes
IMAGES_ON_A_PAGE = 100
MOST_CHOSEN = 256


@dataclass(frozen=True, kw_only=True)
class ShownImage:
    """A base image on a page.

    Attributes:
        class_name: Its class.
        file_name: Its file.
        reasons: Why it may be a mistake, in words; empty if nothing is known.
    """

    class_name: str
    file_name: str
    reasons: list[str]

    @property
    def name(self) -> str:
        """``class/file name``."""
        return f"{self.class_name}/{self.file_name}"


@dataclass(frozen=True, kw_only=True)
class ShownClass:
    """A class on a page.

    Attributes:
        name: Its name.
        count: Number of its images.
        doubtful: Number of images that may be mistakes.
        images: Those that the page shows, doubtful ones first.
    """

    name: str
    count: int
    doubtful: int
    images: list[ShownImage]


@dataclass(frozen=True, kw_only=True)
class Paging:
    """Which part of a long list a page shows.

    Attributes:
        number: The page, from 1.
        pages: Number of pages, at least 1.
        size: Entries on a page.
    """

    number: int
    pages: int
    size: int

    @property
    def part(self) -> slice:
        """The entries that the page shows."""
        return slice((self.number - 1) * self.size, self.number * self.size)


async def render(console: Console, request: Request, class_name: str | None, number: int) -> HTMLResponse:
    """Render the base set, or one of its classes.

    Args:
        console: The console.
        request: The request.
        class_name: The class; None: all.
        number: The page of a long list, from 1.

    Raises:
        ProblemError: 404: there is no such class, or no such page.
    """
    try:
        stored, doubts = await console.stored.read(), await console.stored.doubts()
    except NoBaseSetError as error:
        return console.pages.render(request, "no_base_set", reason=str(error))
    common: dict[str, Any] = {
        "stored": stored,
        "is_compared": doubts is not None,
        "why_not": why_no_change(console.settings, console.access.require(request), "clustering"),
        "size_px": SIZE_PX,
        "has_thumbnails": console.settings.base_data is not None,
    }
    doubts = doubts or {}
    if class_name is None:
        paging = _paging(len(stored.class_sizes), CLASSES_ON_A_PAGE, number)
        names = list(stored.class_sizes)[paging.part]
        classes = [_shown_class(stored, doubts, name, slice(IMAGES_OF_A_CLASS)) for name in names]
        return console.pages.render(
            request,
            "base_set",
            **common,
            classes=classes,
            doubtful=len(doubts),
            paging=paging,
            operations=console.operations.latest(),
        )
    if class_name not in stored.class_sizes:
        raise ProblemError(404, f"The base set has no class {class_name}, or not any more.")
    paging = _paging(stored.class_sizes[class_name], IMAGES_ON_A_PAGE, number)
    shown = _shown_class(stored, doubts, class_name, paging.part)
    return console.pages.render(request, "base_class", **common, shown=shown, paging=paging)


def render_forgetting(console: Console, request: Request, names: Sequence[str]) -> HTMLResponse:
    """Render what forgetting images means, with the form that confirms it."""
    names = list(dict.fromkeys(names))
    return console.pages.render(
        request,
        "forget",
        images=[
            ShownImage(class_name=one, file_name=two, reasons=[]) for one, _, two in (n.partition("/") for n in names)
        ],
        words=words_to_type(names),
        size_px=SIZE_PX,
        has_thumbnails=console.settings.base_data is not None,
    )


def words_to_type(names: Sequence[str]) -> str:
    """Return what a person types to confirm that images are to be forgotten."""
    return names[0] if len(names) == 1 else f"forget {len(names)} images"


def chosen_query(names: Sequence[str]) -> str:
    """Return the query of the page that asks whether to forget images."""
    return urlencode([("image", name) for name in names])


def in_words(doubts: Sequence[Doubt]) -> list[str]:
    """Say why a base image may be a mistake, with a sentence for each kind of reason.

    >>> in_words([Doubt(kind=CLOSER, other="wall", similarity=0.93, own_similarity=0.71)])
    ['closer to wall (0.930) than to its own class (0.710)']
    >>> in_words([Doubt(kind=TWIN, other=f"cat/{name}.jpg", similarity=0.9999) for name in "abc"])
    ['nearly the same as a.jpg (0.9999) and 2 more']
    """
    said = []
    for kind in (CLOSER, CONFLICT, TWIN):
        alike = sorted((doubt for doubt in doubts if doubt.kind == kind), key=lambda doubt: -doubt.similarity)
        if alike:
            more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
            said.append(f"{_first_in_words(alike[0])}{more}")
    return said


def _first_in_words(doubt: Doubt) -> str:
    if doubt.kind == CLOSER:
        return f"closer to {doubt.other} ({doubt.similarity:.3f}) than to its own class ({doubt.own_similarity:.3f})"
    twin = doubt.other if doubt.kind == CONFLICT else doubt.other.partition("/")[2]
    return f"nearly the same as {twin} ({doubt.similarity:.4f})"


def _shown_class(stored: Stored, doubts: Mapping[str, list[Doubt]], name: str, part: slice) -> ShownClass:
    files = stored.classes[name]
    here = {*files}
    doubtful = [image.partition("/")[2] for image in doubts if image.partition("/")[0] == name]
    doubtful = [file for file in doubtful if file in here]
    first = {*doubtful}
    shown = list(chain(doubtful, (file for file in files if file not in first)))[part]
    return ShownClass(
        name=name,
        count=len(files),
        doubtful=len(doubtful),
        images=[
            ShownImage(class_name=name, file_name=file, reasons=in_words(doubts.get(f"{name}/{file}", [])))
            for file in shown
        ],
    )


def _paging(entries: int, size: int, number: int) -> Paging:
    pages = max(1, -(-entries // size))
    if number > pages:
        raise ProblemError(404, f"There is no page {number}: the last is {pages}.")
    return Paging(number=number, pages=pages, size=size)
