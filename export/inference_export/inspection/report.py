"""The findings of an inspection, as text for people and as JSON for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from inference_client.command_line.formatting import printable, table_lines
from inference_export.base_set.analysis import DUPLICATE_SIMILARITY, Analysis, Duplicates, ThresholdOutcome
from inference_export.repository.contents import Contents, StoredBase
from inference_export.repository.provenance import Provenance

SHOWN_CLASSES = 50
SHOWN_ROWS = 20
_HASH_DIGITS = 12
_INDENT = "  "
_FEW_IMAGES = 3


def as_json(contents: Contents, analysis: Analysis | None) -> dict[str, Any]:
    """Return all findings as values for JSON."""
    export, base = contents.export, contents.base
    settings, provenance = export.settings, export.provenance
    values: dict[str, Any] = {
        "repository": str(contents.repository),
        "version": export.version.number,
        "network_version": export.version.network,
        "pinned_version": contents.pinned,
        "versions": contents.versions,
        "exported": provenance.exported,
        "mode": settings.mode,
        "network": _network(provenance),
        "checkpoint": provenance.checkpoint,
        "graph_sha256": provenance.graph,
        "precision": provenance.precision,
        "image_size": contents.shape.image_size,
        "embedding_size": contents.shape.embedding_size,
        "max_batch_size": contents.shape.max_batch_size,
        "classes": settings.classes,
    }
    if base is None or analysis is None:
        return values
    return values | {
        "threshold": settings.threshold,
        "unknown_label": settings.unknown_label,
        "neighbors": settings.neighbors,
        "base_images": dict(zip(settings.classes, base.class_sizes, strict=True)),
        "compared_images": len(analysis.rows),
        "closer_to_another_class": [
            {
                "image": base.name(int(analysis.rows[position])),
                "own_similarity": float(analysis.own[position]),
                "other_class": settings.classes[analysis.other_class[position]],
                "other_similarity": float(analysis.other[position]),
            }
            for position in analysis.misplaced
        ],
        "near_duplicates": {
            "similarity": DUPLICATE_SIMILARITY,
            "label_conflicts": _pairs_json(analysis.conflicts, base),
            "same_class": _pairs_json(analysis.same_class, base),
        },
        "thresholds": {
            "compared_images": analysis.threshold_queries,
            "outcomes": [asdict(outcome) for outcome in analysis.thresholds],
        },
    }


def as_text(contents: Contents, analysis: Analysis | None) -> str:
    """Return the findings as lines of text. Long lists are cut, with a note."""
    lines = [f"{name:18}{value}" for name, value in _facts(contents)]
    if contents.base is not None and analysis is not None:
        lines += ["", *_base_lines(contents, contents.base, analysis)]
    return "\n".join(map(printable, lines))


def _facts(contents: Contents) -> Iterator[tuple[str, object]]:
    export = contents.export
    settings, provenance = export.settings, export.provenance
    number = export.version.number
    others = ", ".join(str(version) for version in contents.versions if version != number)
    state = "which the ensemble answers with" if number == contents.pinned else "which does not answer"
    yield "repository", contents.repository
    yield "version", f"{number}, {state}{f'; also there: {others}' if others else ''}"
    yield "exported", provenance.exported or "unknown"
    yield "mode", settings.mode
    yield "network", f"{_network(provenance)}, checkpoint {provenance.checkpoint}, version {export.version.network}"
    yield "graph", f"{provenance.graph[:_HASH_DIGITS]}, {provenance.precision}"
    yield "image size", f"{contents.shape.image_size} x {contents.shape.image_size}"
    yield "embedding", f"{contents.shape.embedding_size} values"
    yield "batch limit", f"{contents.shape.max_batch_size} images a request"
    if contents.base is None:
        yield "classes", ", ".join(settings.classes)
        return
    yield "threshold", settings.threshold
    yield "unknown label", settings.unknown_label or "none: the nearest class answers"
    yield "neighbors", settings.neighbors
    sizes = contents.base.class_sizes
    shown = list(zip(settings.classes, sizes, strict=True))[:SHOWN_CLASSES]
    for row, (name, size) in enumerate(shown):
        yield "base images" if row == 0 else "", f"{name}: {size}"
    if len(sizes) > len(shown):
        yield "", f"and {len(sizes) - len(shown)} more classes, of {min(sizes)} to {max(sizes)}"


def _base_lines(contents: Contents, base: StoredBase, analysis: Analysis) -> Iterator[str]:
    classes = contents.export.settings.classes
    count = len(analysis.rows)
    sampled = "" if count == len(base.embeddings) else f" (compared: {count} evenly spaced base images)"
    misplaced = analysis.misplaced
    yield f"closer to another class than to their own: {len(misplaced)} of {count} base images{sampled}"
    if len(misplaced):
        rows = (
            (
                base.name(int(analysis.rows[position])),
                f"{analysis.own[position]:.3f}",
                f"{analysis.other[position]:.3f}",
                classes[analysis.other_class[position]],
            )
            for position in misplaced[:SHOWN_ROWS]
        )
        yield from table_lines([("image", "own class", "other", "other class"), *rows], indent=_INDENT)
        yield from _more(len(misplaced))
    for what, duplicates in (
        (f"label conflicts, at a similarity of {DUPLICATE_SIMILARITY} or more across classes", analysis.conflicts),
        (f"near-duplicates, at a similarity of {DUPLICATE_SIMILARITY} or more within a class", analysis.same_class),
    ):
        yield ""
        yield f"{what}: {duplicates.count} pairs{sampled}"
        if duplicates.count:
            shown = duplicates.pairs[:SHOWN_ROWS]
            pairs = ((base.name(one), base.name(two), f"{value:.4f}") for one, two, value in shown)
            yield from table_lines([("image", "image", "similarity"), *pairs], indent=_INDENT)
            yield from _more(duplicates.count)
    alone = [name for name, size in zip(classes, base.class_sizes, strict=True) if size < _FEW_IMAGES]
    if alone:
        yield ""
        yield f"classes of fewer than {_FEW_IMAGES} base images: {', '.join(alone[:SHOWN_ROWS])}"
        yield from _more(len(alone))
    if len(classes) > 1:
        yield ""
        yield f"thresholds, with each of {analysis.threshold_queries} base images as a query and the others as base set"
        outcomes = _threshold_rows(contents, analysis.thresholds)
        yield from table_lines([("threshold", "right", "no match", ""), *outcomes], indent=_INDENT)


def _threshold_rows(contents: Contents, outcomes: Sequence[ThresholdOutcome]) -> Iterator[tuple[str, str, str, str]]:
    exported = round(float(np.float32(contents.export.settings.threshold)), 4)
    best = max(outcome.right for outcome in outcomes)
    differ = any(outcome.right < best for outcome in outcomes)
    for outcome in outcomes:
        remarks = []
        if outcome.threshold == exported:
            remarks.append("as exported")
        if differ and outcome.right == best:
            remarks.append("best")
        yield f"{outcome.threshold:g}", f"{outcome.right:.1%}", f"{outcome.unmatched:.1%}", ", ".join(remarks)


def _more(count: int) -> Iterator[str]:
    if count > SHOWN_ROWS:
        yield f"  and {count - SHOWN_ROWS} more; --json lists them"


def _pairs_json(duplicates: Duplicates, base: StoredBase) -> dict[str, Any]:
    pairs = [{"images": [base.name(one), base.name(two)], "similarity": value} for one, two, value in duplicates.pairs]
    return {"count": duplicates.count, "pairs": pairs}


def _network(provenance: Provenance) -> str:
    return str(provenance.network["name"]) if provenance.network else "ResNet-50 with two heads"
