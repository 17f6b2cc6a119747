"""A native tritonserver on this machine, such as the one in NVIDIA's container."""

from __future__ import annotations

import os
from pathlib import Path

CONTAINER_BINARY = Path("/opt/tritonserver/bin/tritonserver")
_ELF_MAGIC = b"\x7fELF"


def find_installed_binary() -> Path | None:
    """Find a native tritonserver in the container's path or on PATH; ignore scripts, such as our command."""
    candidates = [CONTAINER_BINARY, *(Path(folder) / "tritonserver" for folder in os.get_exec_path())]
    return next((path for path in candidates if os.access(path, os.X_OK) and _is_elf(path)), None)


def _is_elf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_ELF_MAGIC)) == _ELF_MAGIC
    except OSError:
        return False
