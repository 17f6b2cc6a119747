"""Reading .safetensors files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from inference_export.descriptions import describe_error
from inference_export.errors import ResourcesError
from inference_export.resources.memory_limit import memory_limit

if TYPE_CHECKING:
    from torch import Tensor

_SPARE_BYTES = 2**30
_COPIES = 3  # of the file in memory: its entries, their tensors, and what the header becomes


def load_safetensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file. The format holds no code.

    Args:
        content: The file's bytes. Its header is known to fit into them.
        path: The file, for messages.

    Raises:
        ResourcesError: The header is malformed, or contradicts the file's length.
    """
    try:
        from safetensors.torch import load
    except ImportError as error:
        raise ResourcesError(
            f"{path} is a .safetensors file, and the package safetensors is not installed. "
            f"Install it: pip install 'classify-triton[export]'",
            path,
        ) from error
    try:
        with memory_limit(_COPIES * len(content) + _SPARE_BYTES):
            return load(content)
    except Exception as error:  # SafetensorError, and what PyTorch raises on types that it does not know
        raise ResourcesError(
            f"{path} is a broken .safetensors file ({describe_error(error)}). Save it again with "
            f"safetensors.torch.save_file(network.state_dict(), file).",
            path,
        ) from error
