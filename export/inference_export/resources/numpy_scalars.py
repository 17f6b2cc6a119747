"""Stand-ins for the functions that a pickle of numpy scalars calls."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

_DTYPE_LENGTH = 8


def make_dtype(name: str, *_: Any) -> np.dtype[Any]:
    """Stand in for ``numpy.dtype``: for numbers only.

    Raises:
        pickle.UnpicklingError: The name is too long for the type of a number.
    """
    if not isinstance(name, str) or len(name) > _DTYPE_LENGTH:
        raise pickle.UnpicklingError("a numpy scalar that is no number")
    return np.dtype(name, copy=True)  # a copy, since the pickle changes its state


def make_scalar(dtype: Any, data: Any) -> Any:
    """Stand in for ``numpy._core.multiarray.scalar``: for numbers only.

    Raises:
        pickle.UnpicklingError: The value is no number.
    """
    if not isinstance(dtype, np.dtype) or dtype.kind not in "biufc" or not isinstance(data, bytes):
        raise pickle.UnpicklingError("a numpy scalar that is no number")
    return np.frombuffer(data, dtype, count=1)[0]
