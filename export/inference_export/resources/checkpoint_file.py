"""Reading a checkpoint file: its bytes, its kind, and the weights in it.

To support another file format, recognize it in ``file_kinds``, read it in a module like ``torch_file``, and choose that
module here.
"""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_client.command_line.formatting import printable
from inference_export.errors import ResourcesError
from inference_export.regular_files import FileReader
from inference_export.resources.file_kinds import EXPECTED, Kind, Other, identify
from inference_export.resources.pickle_limits import PickleLimitError
from inference_export.resources.safetensors_file import load_safetensors
from inference_export.resources.torch_file import CompressedError, load_tensors
from inference_export.resources.weights import find_weights

if TYPE_CHECKING:
    from torch import Tensor

MAX_CHECKPOINT_BYTES = 4 * 2**30  # an ONNX file holds half of that
_SAVE_AGAIN = "Save it again with torch.save(network.state_dict(), file)"
_REFUSED_CLASS = re.compile(r"(?:GLOBAL|instantiate|class) (\w+(?:\.\w+)+)")


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """The bytes of a checkpoint.

    Attributes:
        path: The file.
        kind: What it is, by its content.
        content: The bytes.
    """

    path: Path
    kind: Kind
    content: bytes


def read_checkpoint_file(path: Path, reader: FileReader) -> CheckpointFile:
    """Read a checkpoint's bytes, and tell what it is.

    Args:
        path: The file.
        reader: Reads the file.

    Raises:
        ResourcesError: The file can't be read, breaks off, or is of another kind.
        ChangedError: The file has changed since it was read.
    """
    try:
        content = reader.read(path, MAX_CHECKPOINT_BYTES)
    except OSError as error:
        raise ResourcesError(f"{path} can't be read ({error.strerror}). Check the file.", path) from error
    kind = identify(content)
    if isinstance(kind, Other):
        raise ResourcesError(f"{path} is {kind.what}. {EXPECTED}\n  {kind.remedy}.", path)
    return CheckpointFile(path=path, kind=kind, content=content)


def read_weights(file: CheckpointFile, key: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """Read the weights in a checkpoint without running any code in it.

    Args:
        file: A PyTorch file, with the weights alone or a training checkpoint, or a .safetensors file.
        key: The key of the weights in a training checkpoint, ``outer.inner`` if nested; None: the only candidate.

    Returns:
        Parameter name to tensor, on the CPU; and notes for the user.

    Raises:
        ResourcesError: The file is unsafe or broken, or does not hold weights, or holds several.
    """
    if file.kind is Kind.SAFETENSORS:
        return find_weights(load_safetensors(file.content, file.path), key, file.path)
    return find_weights(_load_torch(file), key, file.path)


def _load_torch(file: CheckpointFile) -> Any:
    path = file.path
    try:
        return load_tensors(file.content)
    except CompressedError as error:
        raise ResourcesError(
            f"{path} is compressed, so its length does not tell how much memory it takes. torch.save never "
            f"compresses. {_SAVE_AGAIN}.",
            path,
        ) from error
    except PickleLimitError as error:
        raise ResourcesError(f"{path} was not read: {error}. {_SAVE_AGAIN}, from a source you trust.", path) from error
    except pickle.UnpicklingError as error:
        refused = _REFUSED_CLASS.search(str(error))
        what = (
            f"it holds more than the weights, an object of {printable(refused[1])}"
            if refused
            else "it holds more than the weights, or is no PyTorch file"
        )
        raise ResourcesError(
            f"{path} was not read: {what}. A pickle of objects can run code, and a checkpoint may hold tensors and "
            f"plain data only.\n"
            f"  {_SAVE_AGAIN}, from a source you trust.",
            path,
        ) from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError and more on broken files
        raise ResourcesError(
            f"{path} is a PyTorch file of {len(file.content):,} bytes, and is broken: it breaks off, or was changed "
            f"after it was saved.\n"
            f"  Compare its length and checksum with the original's, or choose another checkpoint.",
            path,
        ) from error
