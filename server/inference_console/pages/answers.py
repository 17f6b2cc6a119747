"""The page on which images are chosen and answered."""

from __future__ import annotations

import asyncio
import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import HTMLResponse

from inference_client.client import Results
from inference_console.base_set.stored import NoBaseSetError
from inference_console.base_set.thumbnails import MEDIA_TYPE, SIZE_PX
from inference_console.bodies import Body, Upload
from inference_console.console import Console
from inference_console.pages.offers import why_no_change
from inference_console.problems import ProblemError
from inference_console.security.uploads import MAX_BODY_BYTES

MAX_IMAGES = 32
_LAST_PERCENT = 99.2  # of a bar, where the mark of a threshold is still seen
_NO_THUMBNAILS = "no"  # in the field of this name; a page that asks again has them


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One class in an answer, for the page."""

    name: str
    score: str
    percent: float
    matches: int


@dataclass(frozen=True, kw_only=True)
class Neighbor:
    """One of the most similar reference images, for the page."""

    name: str
    similarity: str
    is_match: bool

    @property
    def class_name(self) -> str:
        """The class."""
        return self.name.partition("/")[0]

    @property
    def file(self) -> str:
        """The file's name."""
        return self.name.partition("/")[2]


@dataclass(frozen=True, kw_only=True)
class AnsweredImage:
    """One image and its answer, for the page.

    Attributes:
        name: The file's name, as the browser gave it.
        thumbnail: The image as a ``data:`` URL; "" where there is none.
        entry: What ``Classify`` says, with details.
        shows_base: Whether the console has thumbnails of reference images.
    """

    name: str
    thumbnail: str
    entry: dict[str, Any]
    shows_base: bool
    side: int = SIZE_PX

    @property
    def kind(self) -> str:
        """``answered``; ``unknown``: the label is no class; ``unmatched``: no reference image matches; ``failed``."""
        label = self.entry["Label"]
        if label is None:
            return "failed"
        if label not in self.entry["Scores"]:
            return "unknown"
        return "unmatched" if self.is_clustering and not self.matches else "answered"

    @property
    def is_clustering(self) -> bool:
        """Whether the answer comes from reference images."""
        return bool(self.entry.get("Neighbors"))

    @property
    def matches(self) -> int:
        """How many reference images of the label match."""
        return int(self.entry.get("Matches", {}).get(self.entry["Label"], 0))

    @property
    def reason(self) -> str:
        """Why there is no answer."""
        text = str(self.entry.get("Error", ""))
        return f"{text[:1].upper()}{text[1:]}."

    @property
    def measure(self) -> str:
        """What the answer's number says, and what it does not."""
        number = self.entry["Probability"]
        if not self.is_clustering:
            return f"The network's own estimate: {number:.1%}. It is not how often such an answer is right."
        if self.kind in {"unknown", "unmatched"}:
            of_class = " and decides the label" if self.kind == "unmatched" else ""
            return (
                f"No reference image reaches the threshold of {self.entry['Threshold']:g}. The most similar one has a "
                f"similarity of {_similarity(number)}{of_class}."
            )
        images = "1 reference image" if self.matches == 1 else f"{self.matches} reference images"
        verb = "matches" if self.matches == 1 else "match"
        return f"{images} of this class {verb}. The most similar one has a similarity of {_similarity(number)}."

    @cached_property
    def bars(self) -> list[Bar]:
        """Every class, those with the most matches and the highest scores first."""
        matches = self.entry["Matches"]
        scores = sorted(self.entry["Scores"].items(), key=lambda item: (-matches.get(item[0], 0), -item[1], item[0]))
        return [
            Bar(
                name=name,
                score=_similarity(score) if self.is_clustering else f"{score:.1%}",
                percent=_percent(score),
                matches=matches.get(name, 0),
            )
            for name, score in scores
        ]

    @property
    def threshold_percent(self) -> float | None:
        """Where the threshold stands in a bar; None: there is none."""
        threshold = self.entry.get("Threshold")
        return None if threshold is None else min(_percent(threshold), _LAST_PERCENT)

    @cached_property
    def neighbors(self) -> list[Neighbor]:
        """The most similar reference images, best first."""
        return [
            Neighbor(
                name=neighbor["Image"],
                similarity=_similarity(neighbor["Similarity"]),
                # as the server compares them
                is_match=bool(np.float32(neighbor["Similarity"]) >= np.float32(self.entry["Threshold"])),
            )
            for neighbor in self.entry.get("Neighbors", ())
        ]

    def other_classes(self, classes: Sequence[str], unknown_label: str | None) -> list[str]:
        """List the classes that may be right if the answer is wrong, and the unknown label."""
        names = list(classes)
        if unknown_label is not None and unknown_label not in names:
            names.append(unknown_label)
        return [name for name in names if name != self.entry["Label"]]


async def render_form(console: Console, request: Request) -> HTMLResponse:
    """Render the page before any image is chosen."""
    server = await console.server.ask()
    return _render(
        console, request, mode=server.mode, threshold=server.threshold, classes=server.classes, error=server.message
    )


async def render_answers(console: Console, request: Request, body: Body, *, sim_thres: float | None) -> HTMLResponse:
    """Classify images, and render what the server said of each.

    Raises:
        ProblemError: There is no image, or there are too many for a page.
    """
    uploads = body.uploads
    if not uploads:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "No image was chosen. Go back, and choose one.")
    if len(uploads) > MAX_IMAGES:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            f"{len(uploads)} images are too many for the page: at most {MAX_IMAGES} at a time. The API takes more.",
        )
    files = [upload.data for upload in uploads]
    (results, status), thumbnails = await asyncio.gather(
        console.classifier(files, sim_thres=sim_thres, details=True),
        _thumbnails(console, files, wanted=body.fields.get("thumbnails") != _NO_THUMBNAILS),
    )
    if isinstance(results, dict):
        return _render(console, request, status=status, error=results["error"], images=[])
    images = _answered(uploads, results, thumbnails, shows_base=console.settings.base_data is not None)
    answered = next((image for image in images if image.kind != "failed"), None)
    classes = [] if answered is None else list(answered.entry["Scores"])
    return _render(
        console,
        request,
        status=status,
        images=images,
        mode=None if answered is None else "clustering" if answered.is_clustering else "classification",
        threshold=None if answered is None else answered.entry["Threshold"],
        classes=classes,
        unknown_label=await _unknown_label(console),
    )


def _answered(
    uploads: Sequence[Upload], results: Results, thumbnails: Sequence[bytes | None], *, shows_base: bool
) -> list[AnsweredImage]:
    return [
        AnsweredImage(name=upload.name, thumbnail=_data_url(thumbnail), entry=dict(entry), shows_base=shows_base)
        for upload, entry, thumbnail in zip(uploads, results, thumbnails, strict=True)
        if isinstance(entry, dict)
    ]


def _render(
    console: Console,
    request: Request,
    *,
    status: int = 200,
    mode: str | None = None,
    threshold: float | None = None,
    classes: Sequence[str] = (),
    unknown_label: str | None = None,
    images: Sequence[AnsweredImage] | None = None,
    error: str = "",
) -> HTMLResponse:
    return console.pages.render(
        request,
        "classify",
        status=status,
        mode=mode,
        threshold=threshold,
        classes=classes,
        unknown_label=unknown_label,
        images=images,
        error=error,
        why_not=why_no_change(console.settings, console.access.require(request), mode),
        most=MAX_IMAGES,
        most_bytes=MAX_BODY_BYTES,
    )


async def _unknown_label(console: Console) -> str | None:
    """Return the unknown label of the base set; None: there is none, or it is not known."""
    try:
        return (await console.stored.read()).unknown_label
    except NoBaseSetError:
        return None


async def _thumbnails(console: Console, files: list[bytes], *, wanted: bool) -> list[bytes | None]:
    return await console.thumbnails.of_contents(files) if wanted else [None] * len(files)


def _data_url(image: bytes | None) -> str:
    return "" if image is None else f"data:{MEDIA_TYPE};base64,{base64.b64encode(image).decode()}"


def _similarity(value: float) -> str:
    """Write a similarity, rounded down, so that none seems to reach a threshold that it does not reach."""
    return f"{math.floor(value * 10_000 + 0.01) / 10_000:.4f}"


def _percent(score: float) -> float:
    """Return the length of a bar; negative similarities have none."""
    return 100 * min(max(score, 0.0), 1.0)
