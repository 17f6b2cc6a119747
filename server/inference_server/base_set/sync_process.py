"""One ``base-set sync`` in a process of its own: neither its memory nor a crash reaches ``inference-server``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from inference_server.base_set.changing import Outcome
from inference_server.base_set.report import outcome_from_json
from inference_server.triton.process import start_child

STOP_TIMEOUT_S = 10.0
_POLL_S = 0.1
_ERROR = "Error: "  # how click begins the message of a refusal
_LAST_WORDS = 2000  # characters


@dataclass(frozen=True, kw_only=True)
class SyncResult:
    """The end of a sync.

    Attributes:
        outcome: What it has done; None if it was refused.
        refusal: Why it was refused, in words; "" if it was not.
    """

    outcome: Outcome | None = None
    refusal: str = ""


def sync_command(
    base_data: Path, model_repository: Path, *, cache: Path, batch_size: int, skip_unreadable: bool
) -> list[str]:
    """Return the command that makes the base set of a repository equal to a folder.

    Args:
        base_data: The folder of base images.
        model_repository: The model repository.
        cache: Folder that keeps computed embeddings.
        batch_size: Images embedded at a time.
        skip_unreadable: Leave out images that do not decode; otherwise the version before decides.
    """
    return [
        sys.executable, "-m", "inference_server.base_set.command", "sync", "--json",
        "-data", str(base_data),
        "--model_repository", str(model_repository),
        "--cache", str(cache),
        "--batch_size", str(batch_size),
        *(["--skip_unreadable"] if skip_unreadable else []),
    ]  # fmt: skip


def run_sync(command: Sequence[str], stopping: threading.Event) -> SyncResult | None:
    """Run a sync to its end.

    The kernel kills the process when the calling thread ends, so it never outlives ``inference-server``.

    Args:
        command: The result of ``sync_command``.
        stopping: Ends the sync when it is set.

    Returns:
        The result; None if the sync was ended.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            process = start_child(command, output=output, errors=errors.fileno())
        except OSError as error:
            return SyncResult(refusal=f"base-set sync can't be started: {error}")
        while process.poll() is None:
            if stopping.wait(_POLL_S):
                _stop(process)
                return None
        return _result(process.returncode, _text(output), _text(errors))


def _result(code: int, output: str, errors: str) -> SyncResult:
    if code < 0:
        return SyncResult(refusal=f"base-set sync was killed by signal {-code}. Is there enough memory?")
    if code == 0:
        try:
            return SyncResult(outcome=outcome_from_json(json.loads(output)))
        except (ValueError, KeyError, TypeError):  # an update may have exchanged the code under a running server
            return SyncResult(refusal="base-set sync said nothing that this server understands. Restart the server.")
    _, _, message = f"\n{errors}".rpartition(f"\n{_ERROR}")
    return SyncResult(refusal=(message or errors[-_LAST_WORDS:]).strip() or f"base-set sync ended with code {code}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # it may hang in a file system that does not answer
        process.wait(STOP_TIMEOUT_S)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")
