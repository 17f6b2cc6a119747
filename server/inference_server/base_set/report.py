"""The findings and results of ``base-set``, as text for people and as values for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inference_client.command_line.formatting import first_few, printable, table_lines
from inference_export.changing import Difference, PreparedChange
from inference_export.consequences import Doubts, Flip, NewImage, QueryComparison
from inference_export.repository.contents import Contents, StoredBase
from inference_export.repository.version_files import Settings
from inference_server.base_set.changing import Outcome
from inference_server.base_set.history import VersionChange, history_json

_SHOWN_NAMES = 20
_INDENT = "  "


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return the result of a change as values for JSON."""
    return {
        "repository": str(outcome.repository),
        "version": outcome.version,
        "version_before": outcome.before,
        **asdict(outcome.difference),
        **_settings_json(outcome.settings),
        "base_images": outcome.class_sizes,
        "servers": outcome.servers,
        "notes": outcome.notes,
    }


def outcome_from_json(values: dict[str, Any]) -> Outcome:
    """Return the result that ``outcome_json`` has made values of.

    Raises:
        KeyError, TypeError: These are other values.
    """
    return Outcome(
        repository=Path(values["repository"]),
        before=values["version_before"],
        version=values["version"],
        difference=Difference(**{name: values[name] for name in ("added", "removed", "replaced")}),
        settings=Settings(
            mode="clustering",
            classes=list(values["base_images"]),
            **{name: values[name] for name in ("threshold", "unknown_label", "neighbors")},
        ),
        class_sizes=values["base_images"],
        servers=values["servers"],
        notes=values["notes"],
    )


def outcome_text(outcome: Outcome) -> str:
    """Return the result of a change as lines of text, and who answers with it."""
    return f"{change_text(outcome)}\n{served_text(outcome.servers)}"


def change_text(outcome: Outcome) -> str:
    """Return the result of a change as lines of text."""
    lines = []
    if outcome.version == outcome.before:
        lines.append(f"nothing to change: version {outcome.version} is what was asked for")
    else:
        total = sum(outcome.class_sizes.values())
        lines.append(
            f"version {outcome.version}, in place of {outcome.before}: {_counts(outcome.difference)}; now "
            f"{total} base images of {len(outcome.class_sizes)} classes"
        )
        lines += _difference_lines(outcome.difference)
        if not outcome.difference:
            settings = outcome.settings
            unknown = settings.unknown_label or "none"
            lines.append(
                f"{_INDENT}threshold {settings.threshold:g}, unknown label {unknown}, {settings.neighbors} neighbors"
            )
    lines += [f"note: {note}" for note in outcome.notes]
    return "\n".join(map(printable_line, lines))


def served_text(servers: Sequence[int]) -> str:
    """Say which servers answer with the version."""
    if not servers:
        return "no inference-server of yours was found that runs on this repository; the next start serves it"
    ports = ", ".join(map(str, servers))
    return f"served now by inference-server on port{'s' if len(servers) > 1 else ''} {ports}"


def check_json(
    change: PreparedChange, doubts: Doubts, new_images: Sequence[NewImage], queries: QueryComparison | None
) -> dict[str, Any]:
    """Return what a change would do as values for JSON."""
    compared = doubts.comparison
    values: dict[str, Any] = {
        "repository": str(change.before.repository),
        "version": change.before.export.version.number,
        **asdict(change.difference),
        "undecodable": doubts.undecodable,
        "rotated": _rotated(change),
        "base_images_before": _class_sizes(change.before.export.settings.classes, change.base_before),
        "base_images_after": _class_sizes(change.settings.classes, change.base),
        "closer_to_another_class": [
            {
                "image": change.base.name(int(compared.rows[position])),
                "own_similarity": float(compared.own[position]),
                "other_class": change.settings.classes[compared.other_class[position]],
                "other_similarity": float(compared.other[position]),
            }
            for position in compared.misplaced
        ],
        "label_conflicts": _pairs(compared.conflicts.pairs, change.base),
        "near_duplicates": _pairs(compared.same_class.pairs, change.base),
        "new_images": [asdict(image) for image in new_images],
        "queries": None,
    }
    if queries is not None:
        values["queries"] = {
            "compared": queries.queries,
            "undecodable": queries.undecodable,
            "flips": [asdict(flip) for flip in queries.flips],
            "right_before": queries.right_before,
            "right_after": queries.right_after,
            "p_value": queries.p_value,
        }
    return values


def check_text(
    change: PreparedChange, doubts: Doubts, new_images: Sequence[NewImage], queries: QueryComparison | None
) -> str:
    """Return what a change would do as lines of text."""
    number = change.before.export.version.number
    if change.difference:
        lines = [f"a sync would change version {number}: {_counts(change.difference)}"]
    else:
        lines = [f"a sync would change no image: version {number} has those of the folder"]
    lines += _difference_lines(change.difference)
    lines += ["", *_class_lines(change)]
    lines += ["", *_doubt_lines(change, doubts), *_new_image_lines(new_images)]
    if queries is not None:
        lines += ["", *_query_lines(queries)]
    return "\n".join(map(printable_line, lines))


def list_json(contents: Contents, base: StoredBase, history: Sequence[VersionChange]) -> dict[str, Any]:
    """Return what a base set holds, and what each version changed, as values for JSON."""
    export = contents.export
    difference = history[0].difference
    return {
        "repository": str(contents.repository),
        "version": export.version.number,
        "network_version": export.version.network,
        "versions": contents.versions,
        "exported": export.provenance.exported,
        **_settings_json(export.settings),
        "base_images": _class_sizes(export.settings.classes, base),
        "images": base.names(),
        "since_version_before": None if difference is None else asdict(difference),
        "changes": history_json(history),
    }


def list_text(contents: Contents, base: StoredBase, history: Sequence[VersionChange], *, images: bool) -> str:
    """Return what a base set holds, and what each version changed, as lines of text."""
    export, settings = contents.export, contents.export.settings
    lines = [
        f"version        {export.version.number}, of {export.provenance.exported or 'an unknown time'}",
        f"threshold      {settings.threshold:g}",
        f"unknown label  {settings.unknown_label or 'none: the nearest class answers'}",
        f"neighbors      {settings.neighbors}",
        f"base images    {len(base.embeddings)}",
        *table_lines(
            [(name, str(size)) for name, size in _class_sizes(settings.classes, base).items()], indent=_INDENT
        ),
    ]
    newest, *older = history
    if newest.difference is not None:
        lines += [f"since before   {_changed(newest)}", *_difference_lines(newest.difference)]
    if older:
        rows = [(f"version {each.version}", each.exported or "", _changed(each)) for each in older]
        lines += ["before that", *table_lines(rows, indent=_INDENT)]
    if images:
        lines += ["", *base.names()]
    return "\n".join(map(printable_line, lines))


def printable_line(line: str) -> str:
    """Replace what a name may hold to deceive a terminal."""
    return "\n".join(map(printable, line.split("\n")))


def _settings_json(settings: Settings) -> dict[str, Any]:
    return {
        "threshold": settings.threshold,
        "unknown_label": settings.unknown_label,
        "neighbors": settings.neighbors,
    }


def _class_sizes(classes: Sequence[str], base: StoredBase) -> dict[str, int]:
    return dict(zip(classes, base.class_sizes, strict=True))


def _pairs(pairs: Sequence[tuple[int, int, float]], base: StoredBase) -> list[dict[str, Any]]:
    return [{"images": [base.name(one), base.name(other)], "similarity": value} for one, other, value in pairs]


def _counts(difference: Difference) -> str:
    counts = ((difference.added, "added"), (difference.removed, "removed"), (difference.replaced, "replaced"))
    said = ", ".join(f"{len(names)} {what}" for names, what in counts if names)
    return f"images: {said}" if said else "the same images"


def _changed(change: VersionChange) -> str:
    """Say in one line what a version changed."""
    if change.difference is None:
        return "not compared: no version of its network is kept before it"
    settings = [
        f"{name.replace('_', ' ')} {_setting(one)} -> {_setting(other)}"
        for name, (one, other) in change.settings.items()
    ]
    return "; ".join([_counts(change.difference)] * bool(change.difference or not settings) + settings)


def _setting(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _difference_lines(difference: Difference) -> Iterator[str]:
    for sign, names in (("+", difference.added), ("-", difference.removed), ("~", difference.replaced)):
        for name in names[:_SHOWN_NAMES]:
            yield f"{_INDENT}{sign} {name}"
        if len(names) > _SHOWN_NAMES:
            yield f"{_INDENT}{sign} and {len(names) - _SHOWN_NAMES} more; --json lists them"


def _class_lines(change: PreparedChange) -> Iterator[str]:
    before = _class_sizes(change.before.export.settings.classes, change.base_before)
    after = _class_sizes(change.settings.classes, change.base)
    rows = [(name, str(before.get(name, 0)), str(after.get(name, 0))) for name in sorted({*before, *after})]
    yield from table_lines([("class", "now", "then"), *rows])


def _doubt_lines(change: PreparedChange, doubts: Doubts) -> Iterator[str]:
    compared, base = doubts.comparison, change.base
    yield f"new images closer to another class than to their own: {len(compared.misplaced)}"
    if len(compared.misplaced):
        rows = [
            (
                base.name(int(compared.rows[position])),
                f"{compared.own[position]:.3f}",
                f"{compared.other[position]:.3f}",
                change.settings.classes[compared.other_class[position]],
            )
            for position in compared.misplaced[:_SHOWN_NAMES]
        ]
        yield from table_lines([("image", "own class", "other", "other class"), *rows], indent=_INDENT)
    for what, found in (
        ("label conflicts, near-duplicates of an image of another class", compared.conflicts),
        ("near-duplicates of an image of the same class", compared.same_class),
    ):
        yield f"{what}: {found.count}"
        if found.count:
            pairs = [(base.name(one), base.name(two), f"{value:.4f}") for one, two, value in found.pairs[:_SHOWN_NAMES]]
            yield from table_lines([("image", "image", "similarity"), *pairs], indent=_INDENT)
    yield f"undecodable: {len(doubts.undecodable)}"
    if doubts.undecodable:
        reasons = [f"{name}: {reason}" for name, reason in doubts.undecodable.items()]
        yield _INDENT + first_few(reasons, _SHOWN_NAMES, separator=f"\n{_INDENT}")
    if rotated := _rotated(change):
        yield f"new images not stored upright, by their EXIF orientation, and taken as stored: {len(rotated)}"
        yield _INDENT + first_few(rotated, _SHOWN_NAMES, separator=f"\n{_INDENT}")


def _new_image_lines(new_images: Sequence[NewImage]) -> Iterator[str]:
    wrong = [image for image in new_images if image.stays_wrong]
    yield f"new images that would get another label than their class, as queries: {len(wrong)}"
    rows = [
        (image.image, image.after.label, f"{image.after.similarity:.3f}", image.after.nearest)
        for image in wrong[:_SHOWN_NAMES]
    ]
    if rows:
        yield from table_lines([("image", "label", "", "nearest"), *rows], indent=_INDENT)


def _rotated(change: PreparedChange) -> list[str]:
    """List the images among those that were read which are not stored upright, and are not turned."""
    return [] if change.images is None else change.images.rotated


def _query_lines(queries: QueryComparison) -> Iterator[str]:
    yield f"queries whose label would change: {len(queries.flips)} of {queries.queries}"
    if queries.undecodable:
        yield f"queries that do not decode: {len(queries.undecodable)}"
    if queries.flips:
        yield from table_lines(
            [
                ("query", "label", "", "nearest", "then", "", "nearest"),
                *(_flip_row(flip) for flip in queries.flips[:_SHOWN_NAMES]),
            ],
            indent=_INDENT,
        )
        if len(queries.flips) > _SHOWN_NAMES:
            yield f"{_INDENT}and {len(queries.flips) - _SHOWN_NAMES} more; --json lists them"
    if queries.right_before is not None and queries.right_after is not None:
        now, then = (f"{right} of {queries.queries} right" for right in (queries.right_before, queries.right_after))
        yield f"accuracy: {now} now, {then} then (McNemar's exact test: p = {queries.p_value:.3g})"


def _flip_row(flip: Flip) -> tuple[str, ...]:
    before, after = flip.before, flip.after
    return (
        flip.query, before.label, f"{before.similarity:.3f}", before.nearest,
        after.label, f"{after.similarity:.3f}", after.nearest,
    )  # fmt: skip
