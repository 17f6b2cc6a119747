"""Reading a checkpoint file into a ``state_dict``.

To support another file format, read it in a module like ``torch_file``, and choose that module here by the file's
content.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_export.descriptions import describe_keys, describe_value
from inference_export.errors import ResourcesError
from inference_export.regular_files import FileReader
from inference_export.resources.pickle_limits import PickleLimitError
from inference_export.resources.torch_file import CompressedError, load_tensors

if TYPE_CHECKING:
    from torch import Tensor

MAX_CHECKPOINT_BYTES = 4 * 2**30  # an ONNX file holds half of that
_SAVE_AGAIN = "Save it again with torch.save(network.state_dict(), file)"


def read_state_dict(checkpoint: Path, reader: FileReader) -> dict[str, Tensor]:
    """Read a checkpoint without running any code in it.

    Args:
        checkpoint: A ``state_dict`` file.
        reader: Reads the file.

    Returns:
        Parameter name to tensor, on the CPU.

    Raises:
        ResourcesError: The file can't be read, is unsafe or broken, or holds no ``state_dict``.
        ChangedError: The file has changed since it was read.
    """
    try:
        content = reader.read(checkpoint, MAX_CHECKPOINT_BYTES)
    except OSError as error:
        raise ResourcesError(f"{checkpoint} can't be read ({error.strerror}). Check the file.", checkpoint) from error
    try:
        state = load_tensors(content)
    except CompressedError as error:
        raise ResourcesError(
            f"{checkpoint} is compressed, so its length does not tell how much memory it takes. torch.save never "
            f"compresses. {_SAVE_AGAIN}.",
            checkpoint,
        ) from error
    except PickleLimitError as error:
        raise ResourcesError(
            f"{checkpoint} was not read: {error}. {_SAVE_AGAIN}, from a source you trust.", checkpoint
        ) from error
    except pickle.UnpicklingError as error:
        raise ResourcesError(
            f"{checkpoint} was not read: it is no PyTorch file, or holds more than the weights of a state_dict. A "
            f"pickle can run code.\n"
            f"  {_SAVE_AGAIN}, from a source you trust.",
            checkpoint,
        ) from error
    except Exception as error:  # torch raises RuntimeError, EOFError, KeyError and more on broken files
        raise ResourcesError(f"{checkpoint} is no PyTorch file, or broken. Copy it again.", checkpoint) from error
    return _require_state_dict(state, checkpoint)


def _require_state_dict(state: Any, checkpoint: Path) -> dict[str, Tensor]:
    import torch

    if isinstance(state, dict) and all(isinstance(value, torch.Tensor) for value in state.values()):
        return state
    inside = [key for key, value in state.items() if isinstance(value, dict)] if isinstance(state, dict) else []
    hint = f" (the state_dict may be under {describe_keys(inside)})" if inside else ""
    raise ResourcesError(
        f"{checkpoint} holds {describe_value(state)}, no state_dict{hint}. Save it with "
        f"torch.save(network.state_dict(), file).",
        checkpoint,
    )
