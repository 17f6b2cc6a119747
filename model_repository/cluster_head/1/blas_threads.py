"""Keeps numpy from multiplying in threads of its own.

OpenBLAS uses its threads for products as small as a query with 19 embeddings, and afterwards they spin for
milliseconds, on cores that the network needs.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

_SETTERS = ("openblas_set_num_threads", "openblas_set_num_threads64_", "scipy_openblas_set_num_threads64_")


def set_blas_threads(count: int) -> None:
    """Set the number of threads of each OpenBLAS that this process has loaded; other libraries keep theirs."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    for path in {line.split(maxsplit=5)[5] for line in maps.splitlines() if "openblas" in line}:
        with contextlib.suppress(OSError):  # its file has been replaced
            library = ctypes.CDLL(path)
            for name in _SETTERS:
                if hasattr(library, name):
                    getattr(library, name)(count)
