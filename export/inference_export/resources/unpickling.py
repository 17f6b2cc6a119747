"""Reading pickles from strangers without running code in them."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference_export.errors import ChangedError, ResourcesError
from inference_export.regular_files import FileReader
from inference_export.resources.memory_limit import memory_limit
from inference_export.resources.numpy_scalars import make_dtype, make_scalar
from inference_export.resources.pickle_limits import PickleLimitError, check_pickle
from inference_export.resources.torch_file import load_tensors

MAX_PICKLE_BYTES = 256 * 2**20
_SPARE_BYTES = 2**30
_BYTES_PER_BYTE = 8  # of memory: a few bytes of the file may become a small object


class _ForbiddenGlobalError(pickle.UnpicklingError):
    pass


class PlainUnpickler(pickle.Unpickler):  # noqa: S301  (it admits only the globals listed below)
    """Admits plain containers, numbers, strings, numpy scalars, and torch tensors on the CPU."""

    def find_class(self, module: str, name: str) -> Any:
        """Resolve the few globals that plain data needs, some of them to stricter functions of our own."""
        try:
            return _GLOBALS["builtins" if module == "__builtin__" else module, name]  # protocol 2 says __builtin__
        except KeyError:
            raise _ForbiddenGlobalError(f"{module}.{name}") from None


def read_plain_pickle(reader: FileReader, path: Path, allowed: str) -> Any:
    """Read a pickle of plain data.

    Args:
        reader: Reads the file.
        path: The file.
        allowed: What the file may hold, for the error message.

    Returns:
        The data.

    Raises:
        ResourcesError: The file is missing, unreadable, longer than ``MAX_PICKLE_BYTES``, or not a pickle. It asks for
            more than plain data needs, or would call other functions when read.
        ChangedError: The file has changed since it was read.
    """
    try:
        content = reader.read(path, MAX_PICKLE_BYTES)
        with memory_limit(_BYTES_PER_BYTE * len(content) + _SPARE_BYTES):
            check_pickle(io.BytesIO(content), len(content))
            return PlainUnpickler(io.BytesIO(content)).load()
    except ChangedError:
        raise
    except _ForbiddenGlobalError as error:
        raise ResourcesError(
            f"{path} was not read: it would call {error}, and may hold only {allowed}.\n"
            f"  A pickle can run code. Recreate the file from a source you trust.",
            path,
        ) from error
    except PickleLimitError as error:
        raise ResourcesError(
            f"{path} was not read: {error}, and may hold only {allowed}. Recreate the file from a source you trust.",
            path,
        ) from error
    except FileNotFoundError as error:
        raise ResourcesError(f"{path} is missing. It must be a pickle of {allowed}.", path) from error
    except OSError as error:
        raise ResourcesError(
            f"{path} can't be read ({error.strerror}). Check the file and its permissions.", path
        ) from error
    except Exception as error:  # a broken pickle raises almost any type
        raise ResourcesError(
            f"{path} is no readable pickle of {allowed}, or breaks off. Create it again.", path
        ) from error


def _dict(*_: Any) -> dict[Any, Any]:
    """Stand in for OrderedDict and defaultdict. The pickle adds the entries later."""
    return {}


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":  # what protocol 2 writes for bytes
        raise pickle.UnpicklingError(f"bytes encoded as {encoding}")
    return text.encode(encoding)


def _rebuild_tensor(*arguments: Any) -> Any:
    import torch

    rebuild: Any = torch._utils._rebuild_tensor_v2
    return rebuild(*arguments)


_GLOBALS: dict[tuple[str, str], Callable[..., Any]] = {
    **{("builtins", kind.__name__): kind for kind in (complex, dict, float, frozenset, int, list, set)},
    ("collections", "OrderedDict"): _dict,
    ("collections", "defaultdict"): _dict,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): make_dtype,
    ("numpy.core.multiarray", "scalar"): make_scalar,
    ("numpy._core.multiarray", "scalar"): make_scalar,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    # PyTorch's own function of this name unpickles anything.
    ("torch.storage", "_load_from_bytes"): load_tensors,
}
