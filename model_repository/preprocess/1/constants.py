"""Tensors that are the same in many answers: made once, and sent again."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

MOST_KEPT = 64
MOST_VALUES = 4096  # of a kept tensor: its copy stays in Triton's shared memory


def repeated_tensor(name: str, row: tuple[Any, ...], dtype: type, rows: int) -> Any:
    """Return a tensor with equal rows.

    Args:
        name: The tensor's name.
        row: The values of each row.
        dtype: numpy's type of the values; ``object`` for texts.
        rows: Number of rows, at least 1.
    """
    make = _kept_tensor if rows * len(row) <= MOST_VALUES else _make_tensor
    return make(name, row, dtype, rows)


def _make_tensor(name: str, row: tuple[Any, ...], dtype: type, rows: int) -> Any:
    return pb_utils.Tensor(name, np.array([row] * rows, dtype))


_kept_tensor = lru_cache(MOST_KEPT)(_make_tensor)


def release_tensors() -> None:
    """Forget the kept tensors. A process that ends with some crashes: it has given Triton's memory back before."""
    _kept_tensor.cache_clear()
