"""Reading and writing the configurations in a model repository."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from inference_export.errors import RepositoryError
from inference_export.regular_files import read_regular_file
from inference_export.repository.configs import (
    CONFIG_FILE,
    ENSEMBLE,
    MAX_CONFIG_BYTES,
    MODELS,
    Version,
    pinned_version,
    with_versions,
    without_versions,
)


def read_config(repository: Path, model: str) -> str:
    """Read the text of a model's configuration.

    Raises:
        OSError: The file can't be read.
        UnicodeDecodeError: The file is not UTF-8.
    """
    return read_regular_file(repository / model / CONFIG_FILE, MAX_CONFIG_BYTES).decode("utf-8")


def write_config(repository: Path, model: str, config: str) -> None:
    """Replace a model's configuration in one step."""
    file = repository / model / CONFIG_FILE
    replacement = file.with_name(f".{file.name}.new")
    replacement.write_text(config, encoding="utf-8")
    replacement.replace(file)


def read_configs(repository: Path) -> dict[str, str]:
    """Read all configurations, without version numbers.

    Args:
        repository: The model repository.

    Returns:
        Model name to the text of its configuration.

    Raises:
        RepositoryError: A configuration can't be read.
    """
    try:
        return {model: without_versions(read_config(repository, model)) for model in (*MODELS, ENSEMBLE)}
    except (OSError, ValueError) as error:
        raise RepositoryError(f"{repository} is damaged: {error}. Run the export again.", repository) from error


def pin_version(repository: Path, version: Version, others: Iterable[Version]) -> None:
    """Make the ensemble answer with a complete version after its next load or start; every moment is one to die at.

    Args:
        repository: The model repository, resolved.
        version: The version.
        others: Other complete versions, which stay loaded.
    """
    listed = {version, *others}
    before = pinned_version(read_config(repository, ENSEMBLE))
    # Whenever this is killed, the models list the version that the ensemble names: otherwise no server would start.
    at_first = listed | ({before} if before and before.number else set())
    for model in (*MODELS, ENSEMBLE):
        write_config(repository, model, with_versions(read_config(repository, model), at_first, version))
    if at_first != listed:
        for model in MODELS:
            write_config(repository, model, with_versions(read_config(repository, model), listed, version))
