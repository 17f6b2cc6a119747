"""Changes the version that a running server answers with; no request fails."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from inference_export.repository.config_files import pin_version, read_configs
from inference_export.repository.configs import ENSEMBLE, MODELS
from inference_export.repository.locks import locked
from inference_export.repository.modes import mode_change, read_mode
from inference_export.repository.versions import complete_versions
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
        RepositoryError: The repository is damaged; nothing was changed.
    """
    access = read_access(port)
    repository = Path(access.repository)
    with locked(repository):
        _require_same_shape(access, repository)
        version = _previous(repository, access.version) if rollback else _newest(repository)
        if version != access.version:
            _change(access, repository, version)
            change_version(port, version)
        modes = mode_change(read_mode(repository, access.version), read_mode(repository, version))
    return Change(before=access.version, after=version, modes=modes)


def _require_same_shape(access: Access, repository: Path) -> None:
    for model, config in read_configs(repository).items():
        if config != access.configs[model]:
            raise ServerError(
                f"{repository} holds an export that a running server can't change to: {model}/config.pbtxt differs in "
                f"{_first_difference(access.configs[model], config)}. The server keeps version {access.version}. "
                f"Restart inference-server to serve the new one."
            )


def _first_difference(served: str, new: str) -> str:
    pairs = zip(served.splitlines(), new.splitlines(), strict=False)
    return next((f"'{old.strip()}', now '{now.strip()}'" for old, now in pairs if old != now), "its length")


def _newest(repository: Path) -> int:
    versions = complete_versions(repository)
    if not versions:
        raise ServerError(f"{repository} holds no complete export. Run export-repository again.")
    return versions[-1]


def _previous(repository: Path, version: int) -> int:
    older = [candidate for candidate in complete_versions(repository) if candidate < version]
    if not older:
        raise ServerError(
            f"{repository} holds no complete version before {version}, so there is none to go back to. The server "
            f"keeps version {version}. To get older answers back, export the older resources again."
        )
    return older[-1]


def _change(access: Access, repository: Path, version: int) -> None:
    pin_version(repository, version, others=[access.version])
    with ModelControl(access) as control:
        try:
            for model in (*MODELS, ENSEMBLE):
                control.load(model)
                if not control.is_ready(model, None if model == ENSEMBLE else version):
                    raise ServerError(f"{model} is not ready after it was loaded")
        except ServerError as error:
            pin_version(repository, access.version, others=[])
            for model in (*MODELS, ENSEMBLE):
                with contextlib.suppress(ServerError):  # loaded versions stay
                    control.load(model)
            raise ServerError(
                f"version {version} is refused, and the server keeps version {access.version}: {error}"
            ) from error
