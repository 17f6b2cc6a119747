"""Makes a change of the base set, and has the running server take it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_export.changing import BaseSetOptions, Difference, prepare_change
from inference_export.consequences import find_doubts
from inference_export.errors import BaseDataError, RepositoryError
from inference_export.progress import Progress, show_nothing
from inference_export.repository.config_files import pin_version
from inference_export.repository.configs import HEAD
from inference_export.repository.destination import require_changeable, resolve_destination
from inference_export.repository.locks import is_held, locked
from inference_export.repository.publishing import unremoved
from inference_export.repository.version_files import Settings
from inference_export.repository.versions import exported_version, list_folders, previous_version
from inference_server.reload.reloading import require_same_shape, serve_pinned
from inference_server.triton.access import find_servers, read_access
from inference_server.triton.access_folders import access_folders


class LargeRemovalError(BaseDataError):
    """More than half of the base images would go, which was not allowed."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command has done.

    Attributes:
        repository: The model repository, resolved.
        before: Number of the version before.
        version: Number of the version that answers now; the same if there was nothing to do.
        difference: The base images that came and went.
        settings: What the version answers by.
        class_sizes: Class name to number of base images.
        servers: Ports of the running servers, which answer with the version.
        notes: Notes for the user.
    """

    repository: Path
    before: int
    version: int
    difference: Difference
    settings: Settings
    class_sizes: dict[str, int]
    servers: list[int]
    notes: list[str]


def change_base_set(
    options: BaseSetOptions, *, strict: bool = False, large_removals: bool = False, progress: Progress = show_nothing
) -> Outcome:
    """Change the base set of a repository, and have every server that runs on it answer with the new version.

    Args:
        options: What to change.
        strict: Refuse new images that may be mistakes.
        large_removals: Allow that more than half of the base images go.
        progress: As in ``export_repository``.

    Raises:
        ExportError: The change is refused. Nothing was replaced.
        ServerError: A running server can't change to the version, or refuses it, and keeps its own.
        OSError: The disk is full, or a file can't be written.
    """
    repository = resolve_destination(options.model_repository)
    require_changeable(repository)
    for port in find_servers(repository):
        require_same_shape(read_access(port), repository)
    with prepare_change(options, progress) as change:
        if change.removes_most and not large_removals:
            raise LargeRemovalError(
                f"{len(change.difference.removed)} of {len(change.base_before.embeddings)} base images would go. Is "
                f"{options.base_data} complete, and mounted? If they are to go, say so with --yes, as in base-set sync "
                f"--yes.",
                options.base_data,
            )
        if strict and (doubts := find_doubts(change, progress)):
            raise BaseDataError(
                f"{len(doubts.comparison.misplaced)} new images are closer to another class, and there are "
                f"{doubts.comparison.conflicts.count + doubts.comparison.same_class.count} near-duplicates and "
                f"{len(doubts.undecodable)} undecodable images. See base-set check, or leave --strict out.",
                options.base_data,
            )
        version = change.publish()
    servers = serve_everywhere(repository)
    return Outcome(
        repository=repository,
        before=change.before.export.version.number,
        version=version,
        difference=change.difference,
        settings=change.settings,
        class_sizes=dict(zip(change.settings.classes, change.base.class_sizes, strict=True)),
        servers=servers,
        notes=[*change.notes, *unremoved(repository), *not_reached(repository, servers)],
    )


def roll_back(model_repository: Path) -> tuple[Path, int, int, list[int]]:
    """Have a repository, and every server that runs on it, answer with the version before the present one.

    Returns:
        The repository, resolved; the version before this command; the version now; ports of the running servers.

    Raises:
        RepositoryError: There is no version to go back to.
        ServerError: A running server refuses the version, and keeps its own.
    """
    repository = resolve_destination(model_repository)
    served = exported_version(repository)
    if served is None:
        raise RepositoryError(f"{repository} holds no export. Name it with --model_repository.", repository)
    with locked(repository):
        version = previous_version(repository, served.number)
        pin_version(repository, version, others=[served])
    return repository, served.number, version.number, serve_everywhere(repository)


def serve_everywhere(repository: Path) -> list[int]:
    """Have every server of a repository answer with the version that its ensemble names.

    Returns:
        The servers' ports.

    Raises:
        ServerError: A server refuses the version, and keeps its own.
    """
    servers = find_servers(repository)
    for port in servers:
        serve_pinned(port)
    return servers


def not_reached(repository: Path, servers: Sequence[int]) -> list[str]:
    """Note that a server runs on a repository which this command can't tell about the change; [] if none does."""
    if servers or not any(is_held(repository, number) for number in list_folders(repository / HEAD)):
        return []
    folders = ", ".join(map(str, access_folders()))
    return [
        f"an inference-server runs on this repository and keeps its version: its key is in none of {folders}. Run the "
        f"command as the server's user with the server's XDG_RUNTIME_DIR and XDG_CACHE_HOME, or restart the server."
    ]
