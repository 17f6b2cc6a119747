"""The backend directory of pip's tritonserver: its own Python backend and our ONNX Runtime backend."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from inference_server.errors import ServerError

_OUR_BACKENDS = Path(__file__).parents[1] / "backends"
_STUB = "triton_python_backend_stub"


def assemble_backends(triton: Path) -> Path:
    """Copy the backends of pip's tritonserver into one folder, as Triton expects them.

    Args:
        triton: The folder ``tritonserver`` of the package ``pytriton``.

    Returns:
        A folder with ``python`` (pip's backend and the stub for this Python) and ``onnxruntime`` (ours). The folder
        lies in the environment, or in the user's cache if the environment is read-only.

    Raises:
        ServerError: Neither place can be written, or programs can't be run from it.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    sources = {
        "python": [*(triton / "backends" / "python").glob("*.*"), triton / "python_backend_stubs" / python / _STUB],
        **{folder.name: list(folder.glob("*.py")) for folder in _OUR_BACKENDS.iterdir() if folder.is_dir()},
    }
    digest = hashlib.sha256()
    for file in sorted(file for files in sources.values() for file in files):
        digest.update(f"{file}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    obstacles = []
    for place in (Path(sys.prefix) / "share", cache):
        target = place / "inference-server" / digest.hexdigest()[:16]
        try:
            if not target.is_dir():
                _copy_atomically(sources, target)
        except OSError as error:
            obstacles.append(f"{place}: {error.strerror}")
            continue
        if not _is_mounted_noexec(target):
            return target
        obstacles.append(f"{place}: mounted noexec, so no program runs from it")
    raise ServerError(
        "there is no place for Triton's backends, which are programs that are copied before the first start:\n  "
        + "\n  ".join(obstacles)
        + "\nSet XDG_CACHE_HOME to a writable folder on a file system that is not mounted noexec. An image can "
        "have the copy made while it is built, as deploy/Dockerfile.cpu does."
    )


def _is_mounted_noexec(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)


def _copy_atomically(sources: dict[str, list[Path]], target: Path) -> None:
    # In the cache, the folder may also hold keys of running servers: only the user may write, whatever the umask.
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # Copies, since Triton refuses links that lead out of the folder.
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        made = Path(temporary) / target.name
        for folder, files in sources.items():
            (made / folder).mkdir(parents=True)
            for file in files:
                shutil.copy(file, made / folder)
        (made / "python" / _STUB).chmod(0o755)
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():  # if it exists, another start was faster
                raise
