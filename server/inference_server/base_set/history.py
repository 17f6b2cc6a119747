"""What changed in each version that a repository keeps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from inference_export.changing import Difference, compare
from inference_export.errors import RepositoryError
from inference_export.repository.contents import Contents, read_contents

CHANGEABLE_SETTINGS = ("threshold", "unknown_label", "neighbors")


@dataclass(frozen=True, kw_only=True)
class VersionChange:
    """What a version changed, compared with the highest kept version below it.

    Attributes:
        version: The version's number.
        exported: When it was made, as ISO 8601 text; None: it does not say.
        network_version: Number of its network.
        difference: The base images that came and went; None: no version below is kept that has the same network and a
            base set.
        settings: Name of each setting that changed, to its value before and now; empty where ``difference`` is None.
    """

    version: int
    exported: str | None
    network_version: int
    difference: Difference | None
    settings: dict[str, tuple[Any, Any]]


def read_history(newest: Contents) -> list[VersionChange]:
    """Compare each kept version, up to a given one, with the version before it.

    Args:
        newest: The version to begin with.

    Returns:
        The versions' changes, newest first. A version that is damaged, or that somebody removes meanwhile, is left out.
    """
    return list(_changes(newest))


def history_json(history: Sequence[VersionChange]) -> list[dict[str, Any]]:
    """Return the changes as values for JSON; the names are null where two versions can't be compared."""
    nothing = dict.fromkeys(("added", "removed", "replaced"))
    return [
        {
            "version": change.version,
            "exported": change.exported,
            "network_version": change.network_version,
            **(nothing if change.difference is None else asdict(change.difference)),
            "settings": {name: {"before": one, "now": other} for name, (one, other) in change.settings.items()},
        }
        for change in history
    ]


def _changes(newest: Contents) -> Iterator[VersionChange]:
    now = newest
    for before in _older(newest):
        yield _change(before, now)
        now = before
    yield _change(None, now)


def _older(newest: Contents) -> Iterator[Contents]:
    for number in reversed(newest.versions):
        if number < newest.export.version.number:
            with contextlib.suppress(RepositoryError):
                yield read_contents(newest.repository, number)


def _change(before: Contents | None, now: Contents) -> VersionChange:
    difference = None
    settings: dict[str, tuple[Any, Any]] = {}
    if (
        before is not None
        and before.base is not None
        and now.base is not None
        and before.export.provenance.graph == now.export.provenance.graph
    ):
        difference = compare(before.base, now.base)
        one, other = vars(before.export.settings), vars(now.export.settings)
        settings = {name: (one[name], other[name]) for name in CHANGEABLE_SETTINGS if one[name] != other[name]}
    return VersionChange(
        version=now.export.version.number,
        exported=now.export.provenance.exported,
        network_version=now.export.version.network,
        difference=difference,
        settings=settings,
    )
