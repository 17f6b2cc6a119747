"""Replaces the processes of one model while the server goes on."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from inference_export.repository.config_files import read_configs
from inference_export.repository.configs import ENSEMBLE
from inference_server.errors import ServerError
from inference_server.supervision.death_watch import DeathWatch
from inference_server.supervision.tritonserver import Tritonserver
from inference_server.triton.access import Access
from inference_server.triton.model_control import ModelControl

_POLL_S = 0.2


def reload_model(server: Tritonserver, access: Access, model: str, is_told_to_stop: Callable[[], bool]) -> None:
    """Have Triton start new processes for a model.

    Args:
        server: The server.
        access: The owner's access to the server.
        model: The model's name.
        is_told_to_stop: Tells whether to wait no longer.

    Raises:
        ServerError: Triton could not start them, or not before the stop; the model then has no working process.
        RepositoryError: The repository is damaged.
        OSError: The repository can't be changed.
    """
    repository = Path(access.repository)
    if read_configs(repository) != access.configs:
        raise ServerError("another repository has taken the place of the served one")
    mark_changed(repository / model)
    with ModelControl(access) as control:
        _load(control, server, model, is_told_to_stop)
        if not control.is_ready(ENSEMBLE):
            raise ServerError(f"{ENSEMBLE} is not ready")


def mark_changed(folder: Path) -> None:
    """Have the next load start new processes for all versions of a model: Triton reloads what seems to have changed.

    Args:
        folder: The model's folder.

    Raises:
        OSError: The folder can't be changed.
    """
    for version in folder.iterdir():
        if version.name.isdecimal():
            for file in version.iterdir():
                os.utime(file)


def _load(control: ModelControl, server: Tritonserver, model: str, is_told_to_stop: Callable[[], bool]) -> None:
    """Load a model; raise ``ServerError`` once that is in vain: Triton may wait forever for a dead process."""
    deaths = DeathWatch(server.pid)
    failures: list[ServerError] = []

    def load() -> None:
        try:
            control.load(model)
        except ServerError as error:
            failures.append(error)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    while thread.is_alive():
        if is_told_to_stop():
            raise ServerError("the server was told to stop")
        if failure := server.failure():
            raise ServerError(f"tritonserver failed meanwhile: {failure}")
        if deaths.has_died():
            raise ServerError("its new process died")
        thread.join(_POLL_S)
    if failures:
        raise failures[0]
