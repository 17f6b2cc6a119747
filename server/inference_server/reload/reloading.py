"""Changing what a running server answers with, without a request that fails: DESIGN's pinned versions."""

from __future__ import annotations

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
    """What a reload did.

    Args:
        before: The version that was served.
        after: The version that is served now.
        modes: What became of the mode, in words; "" where it is the same.
    """

    before: int
    after: int
    modes: str


def reload_repository(port: int, *, rollback: bool = False) -> Change:
    """Have the server on a port answer with the newest export, or with the version before.

    Loads the new version beside the old one, and only then has the ensemble answer with it.

    Args:
        port: HTTP port of an ``inference-server``.
        rollback: Answer with the highest complete version below the one that is served.

    Returns:
        What changed; the same version twice where there was nothing to do.

    Raises:
        ServerError: There is no such server, or it can't change to that version while it runs; it then goes on
            answering with the old one.
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
                f"{repository} holds an export that a running server can't change to: {model}/config.pbtxt differs, "
                f"in {_first_difference(access.configs[model], config)}. The old one is served on; to serve the new "
                f"one, restart inference-server."
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
    older = [each for each in complete_versions(repository) if each < version]
    if not older:
        raise ServerError(f"{repository} holds no version before {version}, to which one could go back.")
    return older[-1]


def _change(access: Access, repository: Path, version: int) -> None:
    pin_version(repository, version, others=[access.version])
    with ModelControl(access) as control:
        try:
            for model in MODELS:
                control.load(model)
                if not control.is_ready(model, version):
                    raise ServerError(f"version {version} of {model} is not ready after it was loaded")
            control.load(ENSEMBLE)
            if not control.is_ready(ENSEMBLE):
                raise ServerError(f"{ENSEMBLE} is not ready after it was loaded")
        except ServerError as error:
            pin_version(repository, access.version, others=[])
            _load_again(control)
            raise ServerError(f"version {version} is refused, {access.version} is served on: {error}") from error


def _load_again(control: ModelControl) -> None:
    for model in (*MODELS, ENSEMBLE):
        try:
            control.load(model)
        except ServerError:  # what is loaded stays
            continue
