"""Changes the version that a running server answers with; no request fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inference_export.repository.config_files import pin_version, read_configs
from inference_export.repository.configs import ENSEMBLE, MODELS, Version
from inference_export.repository.locks import locked
from inference_export.repository.modes import mode_change, read_mode
from inference_export.repository.versions import (
    complete_versions,
    exported_version,
    find_version,
    is_complete,
    previous_version,
)
from inference_server.errors import ServerError
from inference_server.triton.access import Access, change_version, read_access
from inference_server.triton.model_control import ModelControl


@dataclass(frozen=True, kw_only=True)
class Change:
    """The result of a reload.

    Attributes:
        before: The version that was served.
        after: The version that is served now.
        modes: The change of mode, in words; "" without one.
    """

    before: int
    after: int
    modes: str


def reload_repository(port: int, *, rollback: bool = False) -> Change:
    """Have the server on a port answer with the newest export, or with the previous version.

    Loads the new version beside the old one, and only then has the ensemble answer with the new one.

    Args:
        port: HTTP port of an ``inference-server``.
        rollback: Answer with the highest complete version below the served one.

    Returns:
        The change; the same version twice if there was nothing to do.

    Raises:
        ServerError: There is no such server, or it can't change to that version while it runs. It keeps the old one.
        RepositoryError: The repository is damaged, or there is no version to go back to. Nothing was changed.
    """
    return _reload(
        port, lambda repository, served: previous_version(repository, served) if rollback else _newest(repository)
    )


def serve_pinned(port: int) -> Change:
    """Have the server on a port answer with the version that the repository's ensemble names.

    Args, errors and the result are those of ``reload_repository``.
    """
    return _reload(port, lambda repository, _: _pinned(repository))


def require_same_shape(access: Access, repository: Path) -> None:
    """Refuse to change a server whose repository now holds an export of another shape.

    Args:
        access: The owner's access to the server.
        repository: The repository that it serves.

    Raises:
        ServerError: The server can't change to what the repository holds.
        RepositoryError: The repository is damaged.
    """
    for model, config in read_configs(repository).items():
        if config != access.configs[model]:
            raise ServerError(
                f"{repository} holds an export that a running server can't change to: {model}/config.pbtxt differs in "
                f"{_first_difference(access.configs[model], config)}. The server keeps version {access.version}. "
                f"Restart inference-server to serve the new one."
            )


def _reload(port: int, choose: Callable[[Path, int], Version]) -> Change:
    access = read_access(port)
    repository = Path(access.repository)
    with locked(repository):
        require_same_shape(access, repository)
        version = choose(repository, access.version)
        if version.number != access.version:
            _change(access, repository, version)
            change_version(port, version.number)
        modes = mode_change(read_mode(repository, access.version), read_mode(repository, version.number))
    return Change(before=access.version, after=version.number, modes=modes)


def _first_difference(served: str, new: str) -> str:
    pairs = zip(served.splitlines(), new.splitlines(), strict=False)
    return next((f"'{old.strip()}', now '{now.strip()}'" for old, now in pairs if old != now), "its length")


def _newest(repository: Path) -> Version:
    versions = complete_versions(repository)
    if not versions:
        raise ServerError(f"{repository} holds no complete export. Run export-repository again.")
    return versions[-1]


def _pinned(repository: Path) -> Version:
    version = exported_version(repository)
    if version is None:
        raise ServerError(f"{repository} holds no complete export. Run export-repository again.")
    return version


def _change(access: Access, repository: Path, version: Version) -> None:
    served = find_version(repository, access.version)
    pin_version(repository, version, others=[served])
    # A model with the same folder for both versions has nothing to load.
    models = [model for model in MODELS if version.folder(model) != served.folder(model)]
    with ModelControl(access) as control:
        try:
            for model in models:
                control.load(model)
                if not control.is_ready(model, version.folder(model)):
                    raise ServerError(f"{model} is not ready after it was loaded")
            control.load(ENSEMBLE)
            if not control.is_ready(ENSEMBLE):
                raise ServerError(f"{ENSEMBLE} is not ready after it was loaded")
        except ServerError as error:
            if is_complete(repository, served):
                pin_version(repository, served, others=[])
            for model in (*models, ENSEMBLE):
                with contextlib.suppress(ServerError):  # loaded versions stay
                    control.load(model)
            raise ServerError(
                f"version {version.number} is refused, and the server keeps version {served.number}: {error}"
            ) from error
