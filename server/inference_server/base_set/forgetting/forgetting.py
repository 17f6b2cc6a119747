"""Removes images for good: from the folder, every version, ``*.previous``, the cache and the running servers.

A command that was killed at any moment can be run again. So an image's file, by which its embeddings are found in the
cache, goes last.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from inference_client.command_line.formatting import first_few
from inference_export.base_set.embedding_cache import SUFFIX, remove_cache, remove_embeddings
from inference_export.changing import BaseSetOptions, prepare_change
from inference_export.errors import BaseDataError, ExportError, OverlappingChangeError
from inference_export.progress import Progress, show_nothing
from inference_export.repository.config_files import pin_version
from inference_export.repository.configs import ENSEMBLE, HEAD
from inference_export.repository.contents import StoredBase, read_contents
from inference_export.repository.destination import require_changeable, resolve_destination
from inference_export.repository.locks import is_held, locked
from inference_export.repository.publishing import drop_base_sets, previous_path
from inference_export.repository.staging import is_being_changed, remove_left_over, retire
from inference_export.repository.versions import exported_version, list_folders
from inference_server.base_set.changing import LargeRemovalError, serve_everywhere
from inference_server.base_set.forgetting.places import CACHE, PREVIOUS, SHARED_MEMORY, Place, Places
from inference_server.base_set.forgetting.traces import Traces
from inference_server.base_set.forgetting.tracing import (
    collect_traces,
    computed_embeddings,
    equal_images,
    names_in_versions,
)
from inference_server.base_set.forgetting.withdrawn_files import WithdrawnFiles, find_files
from inference_server.errors import ServerError
from inference_server.reload.reloading import require_same_shape
from inference_server.supervision.replacing import replace_processes, server_regions
from inference_server.triton.access import find_servers, read_access
from inference_server.triton.model_control import ModelControl

Result = TypeVar("Result")

_ATTEMPTS = 5  # while a server that watches the folder makes the same change
OTHERS_TIMEOUT_S = 30.0  # for other commands to end, and for servers to release an older version
_POLL_S = 0.1
_SHOWN_NAMES = 20
FOLDER, IMAGE_FILE = "folder of images", "image file"
_REMOVED, _REWRITTEN, _REPLACED = "removed", "rewritten without it", "replaced"
OUT_OF_REACH = (
    "backups and snapshots of the folder, and other copies of the image files",
    "copies of the model repository elsewhere: object stores, container images, other machines",
    "other repositories made from the folder, each of which needs its own forget",
    "other cache folders: those of other users, and of commands that were given another --cache",
    "in the cache, images whose file is gone and which no version holds: the cache knows images by their content only. "
    "Delete the cache folder to be sure",
    "evaluation reports and tables, and other files that name base images",
    "the access log, and what a terminal or a log has recorded of commands",
    "what clients have stored: answers name base images as neighbors",
    "servers of other users, and a tritonserver that was started without inference-server, until they restart",
    "the memory of tritonserver itself until it restarts, swap, and blocks of the disk that are not overwritten yet",
    "the trained network, if the image was among its training images",
)


@dataclass(frozen=True, kw_only=True)
class Looked:
    """A file that was looked at.

    Attributes:
        kind: What the file is part of.
        file: The file.
        found: What of the images it held.
        done: What was done with it; "": nothing.
    """

    kind: str
    file: Path
    found: tuple[str, ...]
    done: str


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """What ``forget`` has done.

    Attributes:
        images: ``class/file name`` of each image.
        repository: The model repository, resolved.
        before: Number of the version before.
        version: Number of the version that answers now.
        servers: Ports of the running servers, which answer with the version.
        looked: Every file that was looked at.
        remaining: Every file that still holds something of the images.
        out_of_reach: What the command can't look at, in words.
    """

    images: list[str]
    repository: Path
    before: int
    version: int
    servers: list[int]
    looked: list[Looked]
    remaining: list[Place]
    out_of_reach: list[str]


def forget(
    options: BaseSetOptions,
    names: Sequence[str],
    *,
    removed: Path,
    large_removals: bool = False,
    progress: Progress = show_nothing,
) -> Forgotten:
    """Remove images for good.

    Args:
        options: The repository, the base data and the cache. Settings stay as they are.
        names: ``class/file name`` of each image.
        removed: The folder that ``base-set remove`` moves images to; it need not exist.
        large_removals: Allow that more than half of the base images go.
        progress: As in ``export_repository``.

    Returns:
        What was done. If something of the images remains, their files are still there, hidden.

    Raises:
        ValueError: The options name no base data.
        ExportError: An image is nowhere, or the change is refused. Nothing has changed.
        ServerError: A running server can't change now. The message says whether anything has changed.
        OSError: A file can't be read or written. Nothing has changed.
    """
    if options.base_data is None:
        raise ValueError("name the base data")
    names = list(dict.fromkeys(names))
    repository = resolve_destination(options.model_repository)
    contents = read_contents(repository)
    require_changeable(repository)
    _require_unchanging(repository)
    files = find_files(options.base_data.resolve(), removed.resolve(), names)
    traces = collect_traces(contents, files, names, options.cache)
    if find_servers(repository):
        computed = computed_embeddings(contents, files.files, options.batch_size)
        traces = replace(traces, embeddings={*traces.embeddings, *computed})
    places = Places(repository=repository, cache=options.cache.resolve())
    before = places.search(traces, progress, "looking for the images")
    _require_found(traces, files, places, before)
    version = contents.export.version.number
    files.hide()
    try:
        if contents.base is not None:
            if files.in_folder or _is_served(before, repository, version):
                version = _retried(partial(_change, options, files, traces, large_removals, progress))
            else:
                _require_no_equal(contents.base, traces)
    except BaseException:
        files.unhide()
        raise
    try:
        servers = _retried(partial(_drop_versions, repository, traces))
        _drop_previous(repository, before)
        _clean_cache(traces, before)
        _wait_for_other_commands(repository)
        remove_left_over(repository)
        after = places.search(traces, progress, "looking again")
        remaining = [place for place in after if place.found]
        if not remaining:
            files.delete()
    except (ServerError, ExportError, OSError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise ServerError(
            f"the images are not gone everywhere, and may still be served: {reason}\n  Their files are hidden from now "
            f"on. Run the same command again."
        ) from error
    return Forgotten(
        images=names,
        repository=repository,
        before=contents.export.version.number,
        version=version,
        servers=servers,
        looked=[*_looked_for_files(files, deleted=not remaining), *_compare(before, after)],
        remaining=remaining,
        out_of_reach=[*OUT_OF_REACH, *(f"{file}, to which a link in the folder led" for file in files.links)],
    )


def _require_unchanging(repository: Path) -> None:
    """Refuse before anything changes what would fail halfway.

    Raises:
        ServerError: A running server can't change now, or another command is changing the repository.
    """
    served = set()
    for port in find_servers(repository):
        access = read_access(port)
        require_same_shape(access, repository)
        with ModelControl(access) as control:
            if not control.is_ready(ENSEMBLE):
                raise ServerError(f"the server on port {port} is not ready. Run the command again when it is.")
        if not server_regions(access):
            raise ServerError(
                f"the memory of the server on port {port} can't be looked at. Run the command as the server's "
                f"user, and in its container."
            )
        served.add(access.version)
    previous = previous_path(repository)
    if ports := find_servers(previous):
        raise ServerError(
            f"inference-server on port {ports[0]} serves {previous}, which would be removed if it holds the images. "
            f"Stop it, and run the command again."
        )
    _wait_until_released(repository, set(list_folders(repository / HEAD)) - served)
    _wait_for_other_commands(repository)


def _wait_until_released(repository: Path, numbers: Collection[int]) -> None:
    for number in sorted(numbers):
        _wait(
            lambda number=number: not is_held(repository, number),  # type: ignore[misc]
            f"version {number} is being served by an inference-server that this command can't change: another user's, "
            f"or one whose access file is gone. Stop or restart it, and run the command again.",
        )


def _wait_for_other_commands(repository: Path) -> None:
    _wait(
        lambda: not is_being_changed(repository),
        f"another command is changing {repository}. Run this one again when the other has ended.",
    )


def _wait(is_done: Callable[[], bool], otherwise: str) -> None:
    deadline_s = time.monotonic() + OTHERS_TIMEOUT_S
    while not is_done():
        if time.monotonic() >= deadline_s:
            raise ServerError(otherwise)
        time.sleep(_POLL_S)


def _require_found(traces: Traces, files: WithdrawnFiles, places: Places, looked: Sequence[Place]) -> None:
    known = files.names | names_in_versions(places.repository, traces.names)
    hits = [place.file for place in looked if place.found]
    missing = [
        name
        for name in traces.names
        if name not in known and not any(Traces(names=[name]).find_in(file) for file in hits)
    ]
    if missing:
        raise BaseDataError(
            f"nothing is known of {first_few(missing, _SHOWN_NAMES)}. Looked in {files.base_data}, {files.removed}, "
            f"{places.repository} with all its versions, and {previous_path(places.repository)}. Give class/file, as "
            f"base-set list --images shows it. The cache knows images by their content only: if the file is gone, and "
            f"no version holds the image any more, delete {places.cache} to be sure. Nothing has changed.",
            files.base_data,
        )


def _is_served(looked: Sequence[Place], repository: Path, version: int) -> bool:
    return any(_version_of(place, repository) == version for place in looked if place.found)


def _version_of(place: Place, repository: Path) -> int | None:
    """Return the version of ``cluster_head`` that a file belongs to."""
    folder = place.file.parent
    return int(folder.name) if folder.parent == repository / HEAD and folder.name.isdecimal() else None


def _change(
    options: BaseSetOptions, files: WithdrawnFiles, traces: Traces, large_removals: bool, progress: Progress
) -> int:
    """Publish the base set without the images, which are hidden, and return its version."""
    if files.leaves_nothing():
        raise BaseDataError(
            f"no base image would remain in {files.base_data}, and clustering mode needs some. Add others, or export "
            f"with --mode classification; then forget the images.",
            files.base_data,
        )
    with prepare_change(options, progress) as change:
        if change.removes_most and not large_removals:
            raise LargeRemovalError(
                f"{len(change.difference.removed)} of {len(change.base_before.embeddings)} base images would go. Is "
                f"{options.base_data} complete, and mounted? If they are to go, add --yes.",
                options.base_data,
            )
        _require_no_equal(change.base, traces)
        return change.publish()


def _retried(action: Callable[[], Result]) -> Result:
    """Do something again while other commands change the repository, such as a server that watches the folder."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(OverlappingChangeError):
            return action()
    return action()


def _require_no_equal(base: StoredBase, traces: Traces) -> None:
    if equal := equal_images(base, traces):
        raise BaseDataError(
            f"base images that would stay have exactly the embedding of one that is to be forgotten: "
            f"{first_few(equal, _SHOWN_NAMES)}. They may be copies. Name them as well, or remove them first. Nothing "
            f"has changed."
        )


def _drop_versions(repository: Path, traces: Traces) -> list[int]:
    """Remove the versions that hold something of the images, from the repository and from its running servers.

    Returns:
        The servers' ports.

    Raises:
        OverlappingChangeError: Another command has changed the version that is answered with meanwhile.
        ServerError: A server goes on serving such a version.
        OSError: A file can't be removed.
    """
    servers = serve_everywhere(repository)
    with locked(repository):
        pinned = exported_version(repository)
        holding = [
            number
            for number in list_folders(repository / HEAD)
            if any(traces.find_in(file) for file in (repository / HEAD / str(number)).iterdir() if file.is_file())
        ]
        accesses = [read_access(port) for port in servers]
        if pinned is None or pinned.number in holding or any(each.version != pinned.number for each in accesses):
            raise OverlappingChangeError(f"{repository} was changed by another command meanwhile.", repository)
        if holding or accesses:
            pin_version(repository, pinned, others=[])
        for access in accesses:
            replace_processes(access, holding)
        _wait_until_released(repository, holding)
        drop_base_sets(repository, holding)
    return servers


def _drop_previous(repository: Path, looked: Sequence[Place]) -> None:
    previous = previous_path(repository)
    if previous.is_dir() and any(place.found for place in looked if place.kind == PREVIOUS):
        retire(previous, repository)


def _clean_cache(traces: Traces, looked: Sequence[Place]) -> None:
    cached = [place for place in looked if place.kind == CACHE]
    holding = {place.file for place in cached if place.found}
    for place in cached:
        if place.file.suffix == SUFFIX and place.file.exists():
            beside = any(file.name.startswith(place.file.name) for file in holding)
            remove_embeddings(place.file, traces.hashes, traces.embeddings, rewrite=beside)
    for place in cached:
        if place.found and traces.find_in(place.file):
            remove_cache(place.file)


def _looked_for_files(files: WithdrawnFiles, *, deleted: bool) -> list[Looked]:
    """List the folders of images, and the images' files there."""
    done = _REMOVED if deleted else ""
    looked = []
    for folder in (files.base_data, files.removed):
        inside = [file for file in files.origins if folder in file.parents]
        looked.append(Looked(kind=FOLDER, file=folder, found=("image",) if inside else (), done=""))
        looked += [Looked(kind=IMAGE_FILE, file=file, found=("image",), done=done) for file in inside]
    return looked


def _compare(before: Sequence[Place], after: Sequence[Place]) -> list[Looked]:
    """List every file of two searches, with what the first one found and what has become of it."""
    found_after = {place.file: place.found for place in after}
    looked = []
    for place in before:
        done = ""
        if place.file not in found_after:
            done = _REPLACED if place.kind == SHARED_MEMORY else _REMOVED
        elif place.found and not found_after[place.file]:
            done = _REWRITTEN
        looked.append(Looked(kind=place.kind, file=place.file, found=place.found, done=done))
    known = {place.file for place in before}
    looked += [
        Looked(kind=place.kind, file=place.file, found=place.found, done="")
        for place in after
        if place.file not in known
    ]
    return looked
