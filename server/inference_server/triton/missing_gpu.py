"""Triton's messages that it finds no CUDA, at the start and at each reload. Without a GPU they mean nothing."""

from __future__ import annotations

import re
from pathlib import Path

HARMLESS = "Triton's messages that it finds no CUDA are harmless here: this machine shows no NVIDIA GPU"
_NOTE = b"inference-server: no NVIDIA GPU here; Triton's messages that it finds no CUDA are left out"
# Seen in 2.51. The ends name the driver's error. Other messages may quote these, so they must begin with a line's first
# quotation mark, behind the time, the process and Triton's source file.
_MESSAGES = re.compile(
    rb'[^"]{1,200}\.cc:\d+\] "(?:'
    rb"Unable to allocate pinned system memory, pinned memory pool will not be available: "
    rb"|failed to allocate pinned system memory: no pinned memory pool, "
    rb'|CUDA memory pool disabled"'
    rb'|CudaDriverHelper has not been initialized\."'
    rb"|unable to create stream for ensemble: CUDA driver version is insufficient"
    rb"|unable to create stream for ensemble: no CUDA-capable device)"
)


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Tell whether a GPU of NVIDIA is visible; with one, Triton's messages about CUDA tell of a fault."""
    return any(devices.glob("nvidia*")) or (devices / "dxg").exists()  # the latter in WSL


class WithoutGpu:
    """Leaves Triton's messages about missing CUDA out of a log, and says so once."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, line: bytes) -> bytes | None:
        """Return the line to log in place of a line; None for no line."""
        if not _MESSAGES.match(line):
            return line
        said, self._said = self._said, True
        return None if said else _NOTE
