"""The consequences of a change of the base set: doubtful new images, and answers that would flip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from inference_export.base_set.analysis import Comparison, compare_rows
from inference_export.base_set.base_images import find_base_images
from inference_export.base_set.building import find_undecodable
from inference_export.base_set.embedding import embed_images
from inference_export.base_set.embedding_cache import open_cache
from inference_export.base_set.scoring import Float32, Index
from inference_export.changing import PreparedChange, open_version_images, version_graph
from inference_export.errors import BaseDataError
from inference_export.onnx_session import open_graph
from inference_export.progress import Progress, show_nothing
from inference_export.regular_files import FileReader
from inference_export.repository.contents import StoredBase
from inference_export.repository.version_files import Settings
from inference_export.template import load_served_module

MAX_NEW_IMAGES = 1000  # that are asked as queries
_BLOCK_QUERIES = 256

_heads = load_served_module("cluster_head", "heads")


@dataclass(frozen=True, kw_only=True)
class Doubts:
    """New base images that may be mistakes, in the base set that would be.

    Attributes:
        undecodable: ``class/file name`` and reason of each image that does not decode.
        comparison: Each new image, compared with all other base images.
    """

    undecodable: dict[str, str]
    comparison: Comparison

    def __bool__(self) -> bool:
        compared = self.comparison
        return bool(
            self.undecodable or len(compared.misplaced) or compared.same_class.count or compared.conflicts.count
        )


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer to a query from one base set.

    Attributes:
        label: The label.
        similarity: Highest similarity in the label's class, or in any class for the unknown label, -1 to 1.
        nearest: ``class/file name`` of the most similar base image.
    """

    label: str
    similarity: float
    nearest: str


@dataclass(frozen=True, kw_only=True)
class NewImage:
    """A new base image, asked as a query.

    Attributes:
        image: ``class/file name``.
        before: The answer from the base set that is there.
        after: The answer from the base set that would be, which holds the image itself.
    """

    image: str
    before: Answer
    after: Answer

    @property
    def stays_wrong(self) -> bool:
        """Whether the image would get another label than its class: too few of its kind are in the base set."""
        return self.after.label != self.image.partition("/")[0]


@dataclass(frozen=True, kw_only=True)
class Flip:
    """A query whose label would change.

    Attributes:
        query: The query's file, relative to the folder of queries.
        before: The answer from the base set that is there.
        after: The answer from the base set that would be.
        truth: The query's class; None: the queries lie in no class folders.
    """

    query: str
    before: Answer
    after: Answer
    truth: str | None


@dataclass(frozen=True, kw_only=True)
class QueryComparison:
    """The answers to queries before and after a change.

    Attributes:
        queries: Number of queries with an answer.
        undecodable: File and reason of each query that does not decode.
        flips: The queries whose label would change.
        right_before: Number of right labels before; None: the queries lie in no class folders.
        right_after: Number of right labels after; None: the queries lie in no class folders.
    """

    queries: int
    undecodable: dict[str, str]
    flips: list[Flip]
    right_before: int | None
    right_after: int | None

    @property
    def p_value(self) -> float | None:
        """McNemar's exact two-sided test on the flips from right to wrong and from wrong to right, 0 to 1."""
        if self.right_before is None:
            return None
        lost = sum(flip.before.label == flip.truth for flip in self.flips)
        won = sum(flip.after.label == flip.truth for flip in self.flips)
        return mcnemar(lost, won)


def mcnemar(lost: int, won: int) -> float:
    """Compute the two-sided p-value of McNemar's exact test (McNemar, 1947).

    Args:
        lost: Queries that were right, and would be wrong.
        won: Queries that were wrong, and would be right.

    >>> mcnemar(0, 6)
    0.03125
    >>> mcnemar(3, 3)
    1.0
    """
    discordant = lost + won
    tail = sum(math.comb(discordant, count) for count in range(min(lost, won) + 1))
    return float(min(1, tail / 2 ** (discordant - 1)))


def find_doubts(change: PreparedChange, progress: Progress = show_nothing) -> Doubts:
    """Compare each new or replaced base image with all others of the base set that would be."""
    rows = _new_rows(change)
    with progress("comparing new images", len(rows)) as advance:
        comparison = compare_rows(change.base.embeddings, change.base.class_starts, rows, advance=advance)
    images = change.images
    undecodable = {} if images is None else {images.name_of(file): why for file, why in images.undecodable.items()}
    return Doubts(undecodable=undecodable, comparison=comparison)


def answer_new_images(change: PreparedChange) -> list[NewImage]:
    """Ask the first ``MAX_NEW_IMAGES`` new or replaced base images as queries, now and then."""
    rows = _new_rows(change)[:MAX_NEW_IMAGES]
    answered = []
    for start in range(0, len(rows), _BLOCK_QUERIES):
        block = rows[start : start + _BLOCK_QUERIES]
        queries = np.ascontiguousarray(change.base.embeddings[block])
        before = _answers(queries, change.base_before, change.before.export.settings)
        after = _answers(queries, change.base, change.settings)
        answered += [
            NewImage(image=change.base.name(int(row)), before=one, after=other)
            for row, one, other in zip(block, before, after, strict=True)
        ]
    return answered


def compare_queries(
    change: PreparedChange, folder: Path, *, cache: Path, batch_size: int, progress: Progress = show_nothing
) -> QueryComparison:
    """Answer queries with the base set that is there and with the one that would be.

    Args:
        change: The change.
        folder: The queries: image files, or a folder of image files for each class.
        cache: Folder of cached embeddings. The queries' embeddings are kept there too.
        batch_size: Queries embedded at a time.
        progress: As in ``export_repository``.

    Raises:
        BaseDataError: The folder holds no queries.
        ChangedError: A query has changed since it was read.
    """
    files, truths = _find_queries(folder)
    reader = FileReader()
    with open_version_images(change.before, reader) as images:
        reasons = find_undecodable(files, images, cache=cache, label="reading queries", progress=progress)
        undecodable = {str(file.relative_to(folder)): reason for file, reason in reasons.items()}
        kept = [place for place, file in enumerate(files) if file not in reasons]
        if not kept:
            raise BaseDataError(f"no query in {folder} decodes. Name another folder with --queries.", folder)
        queries = np.empty((len(kept), change.before.shape.embedding_size), np.float32)
        with (
            open_cache(cache, images.decoding, change.before.export.provenance.graph) as embeddings,
            progress("embedding queries", len(kept)) as advance,
        ):
            embed_images(
                partial(open_graph, version_graph(change.before)),
                images,
                embeddings,
                [files[place] for place in kept],
                destination=queries,
                rows=np.arange(len(kept)),
                batch_size=batch_size,
                advance=advance,
            )
    before = _answers(queries, change.base_before, change.before.export.settings)
    after = _answers(queries, change.base, change.settings)
    truth_of = [None if truths is None else truths[place] for place in kept]
    flips = [
        Flip(query=str(files[place].relative_to(folder)), before=one, after=other, truth=truth)
        for place, one, other, truth in zip(kept, before, after, truth_of, strict=True)
        if one.label != other.label
    ]
    return QueryComparison(
        queries=len(kept),
        undecodable=undecodable,
        flips=flips,
        right_before=None if truths is None else _count_right(before, truth_of),
        right_after=None if truths is None else _count_right(after, truth_of),
    )


def _new_rows(change: PreparedChange) -> Index:
    new = {*change.difference.added, *change.difference.replaced}
    return np.array([row for row, name in enumerate(change.base.names()) if name in new], np.intp)


def _find_queries(folder: Path) -> tuple[list[Path], list[str] | None]:
    """List the queries, and their classes if they lie in class folders."""
    visible = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if any(entry.is_dir() for entry in visible):
        found = find_base_images(folder)
        return found.files, [name for name, files in found.classes.items() for _ in files]
    if not visible:
        raise BaseDataError(f"{folder} holds no queries. Name a folder of images with --queries.", folder)
    return visible, None


def _answers(queries: Float32, base: StoredBase, settings: Settings) -> list[Answer]:
    """Answer queries, float32 [N, D], with the server's own code."""
    head: Any = _heads.ClusteringHead(vars(settings) | {"neighbors": 1}, base.files)
    thresholds = np.full(len(queries), settings.threshold, np.float32)
    answer = head.answer(queries, queries[:, :0], thresholds)
    return [
        Answer(label=str(label), similarity=float(similarity), nearest=str(nearest))
        for label, similarity, nearest in zip(
            answer["LABEL"][:, 0], answer["PROBABILITY"][:, 0], answer["NEIGHBOR"][:, 0], strict=True
        )
    ]


def _count_right(answers: Sequence[Answer], truths: Sequence[str | None]) -> int:
    return sum(answer.label == truth for answer, truth in zip(answers, truths, strict=True))
