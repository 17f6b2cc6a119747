"""Replaces all processes of a running server's models, with the shared memory that they used; no request fails."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from pathlib import Path

from inference_export.repository.configs import ENSEMBLE, HEAD, MODELS
from inference_server.errors import ServerError
from inference_server.supervision.model_processes import DEAD_STATES, STUB, descendants, read_state
from inference_server.supervision.repair import mark_changed
from inference_server.supervision.shared_memory import mapped_regions
from inference_server.triton.access import Access
from inference_server.triton.model_control import ModelControl

END_TIMEOUT_S = 120.0  # for the old processes to answer their last requests
_POLL_S = 0.1


def server_regions(access: Access) -> set[Path]:
    """List the regions of shared memory that a running server and its models use.

    Args:
        access: The owner's access to the server.
    """
    regions = (mapped_regions(pid) for pid in descendants(access.pid))
    return {region for found in regions for region in found if region.exists()}


def replace_processes(access: Access, dropped: Collection[int]) -> None:
    """Have a server load its models afresh, without the versions that their configurations no longer list.

    The new processes start beside the old ones, which then answer their last requests and end. The caller holds the
    repository's lock.

    Args:
        access: The owner's access to the server, which answers with the version that the repository names.
        dropped: Versions of ``cluster_head`` that must not be loaded afterwards.

    Raises:
        ServerError: A model can't be loaded, or an old process does not end.
        OSError: The repository can't be changed.
    """
    repository = Path(access.repository)
    processes = {pid for pid in descendants(access.pid) if _is_stub(pid)}
    regions = server_regions(access)
    with ModelControl(access) as control:
        for model in MODELS:
            mark_changed(repository / model)
            control.load(model)
        if not control.is_ready(ENSEMBLE):
            raise ServerError(f"{ENSEMBLE} is not ready after its models were loaded. Restart inference-server.")
        deadline_s = time.monotonic() + END_TIMEOUT_S
        while True:
            loaded = [number for number in dropped if control.is_ready(HEAD, str(number))]
            remaining = [pid for pid in processes if _is_alive(pid)]
            if not loaded and not remaining and not any(region.exists() for region in regions):
                return
            if time.monotonic() >= deadline_s:
                raise ServerError(
                    f"the server's old processes have not ended within {END_TIMEOUT_S:g} s (process ids "
                    f"{', '.join(map(str, remaining)) or 'unknown'}). Restart inference-server, and run the command "
                    f"again."
                )
            time.sleep(_POLL_S)


def _is_stub(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].endswith(STUB.encode())
    return False


def _is_alive(pid: int) -> bool:
    state = read_state(pid)
    return state is not None and state.state not in DEAD_STATES
