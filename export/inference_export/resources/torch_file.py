"""Reading PyTorch files from strangers: no code runs, and memory is limited."""

from __future__ import annotations

import argparse
import io
import zipfile
from typing import Any

import numpy as np

from inference_export.resources.memory_limit import memory_limit
from inference_export.resources.numpy_scalars import make_dtype, make_scalar
from inference_export.resources.pickle_limits import check_pickle

_ZIP, _PICKLE = b"PK\3\4", b"\x80"
_LEGACY_PICKLES = 5  # before PyTorch 1.6: a number, a version, the system, the objects, and the names of their tensors
_SPARE_BYTES = 2**30
_COPIES = 3  # of the file in memory: the archive, its copy, and the tensors


class CompressedError(ValueError):
    """A file is compressed, so its length does not tell how much memory it takes."""


def load_tensors(content: bytes) -> Any:
    """Read a PyTorch file without running code in it, in memory limited by the file's length.

    Args:
        content: The file's bytes.

    Returns:
        The object in the file, on the CPU.

    Raises:
        CompressedError: The file is compressed.
        PickleLimitError: A pickle in the file asks for more than a ``state_dict`` needs.
        pickle.UnpicklingError: The file holds more than tensors and plain data, or is not a PyTorch file.
        Exception: Any other exception: the file is broken.
    """
    import torch

    with memory_limit(_COPIES * len(content) + _SPARE_BYTES):
        file = _copy_archive(content) if content.startswith(_ZIP) else _check_legacy(content)
        with torch.serialization.safe_globals(_plain_globals()):
            return torch.load(file, map_location="cpu", weights_only=True)


def _plain_globals() -> list[Any]:
    """List what training checkpoints hold beside tensors: numpy scalars and the command's arguments."""
    return [
        argparse.Namespace,
        (make_dtype, "numpy.dtype"),
        *((make_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
        *(type(np.dtype(code)) for code in "?bBhHiIlLqQefdFD"),
    ]


def _copy_archive(content: bytes) -> io.BytesIO:
    """Copy a zip archive entry by entry, and check its sizes. PyTorch might find other entries in the original."""
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
