"""PyTorch files from strangers: how large what they hold is, looked up before PyTorch reads it."""

from __future__ import annotations

import io
import zipfile
from typing import Any

from inference_export.resources.memory_limit import memory_limit
from inference_export.resources.pickle_limits import check_pickle

MAX_CHECKPOINT_BYTES = 4 * 2**30  # an ONNX file holds half of that
_ZIP, _PICKLE = b"PK\3\4", b"\x80"
_LEGACY_PICKLES = 5  # of PyTorch before 1.6: a number, a version, the system, the objects, the names of their tensors
_SPARE_BYTES = 2**30
_COPIES = 3  # of the file in memory: the archive, its copy, and the tensors


class CompressedError(ValueError):
    """A file is compressed, so that its length says nothing about what it holds."""


def load_tensors(content: bytes) -> Any:
    """Read a PyTorch file without running code in it, or taking more memory than its length admits.

    Args:
        content: The file.

    Returns:
        What it holds, on the CPU.

    Raises:
        CompressedError: It is compressed, which ``torch.save`` never does.
        PickleLimitError: It holds a pickle that asks for more than a ``state_dict`` needs.
        pickle.UnpicklingError: It holds more than tensors and plain data, or is no PyTorch file.
        Exception: Of any other kind: it is broken.
    """
    import torch

    with memory_limit(_COPIES * len(content) + _SPARE_BYTES):
        file = _copy_archive(content) if content.startswith(_ZIP) else _check_legacy(content)
        return torch.load(file, map_location="cpu", weights_only=True)


def _copy_archive(content: bytes) -> io.BytesIO:
    """Copy a zip archive whose sizes are what they say: another reader than this one could find other entries in it."""
    copy = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(copy, "w") as checked:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise CompressedError("compressed")
        if sum(entry.file_size for entry in entries) > len(content):
            raise zipfile.BadZipFile("its entries overlap")
        for entry in entries:
            data = archive.read(entry)
            if entry.filename.endswith(".pkl"):
                check_pickle(io.BytesIO(data), len(data))
            checked.writestr(entry.filename, data)
    copy.seek(0)
    return copy


def _check_legacy(content: bytes) -> io.BytesIO:
    if not content.startswith(_PICKLE):
        raise ValueError("neither a zip archive nor a pickle")
    file = io.BytesIO(content)
    for _ in range(_LEGACY_PICKLES):
        check_pickle(file, len(content))
    file.seek(0)
    return file
