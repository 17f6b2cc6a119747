"""The server's comparison of embeddings, for the export."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from inference_export.template import load_served_module

Float32 = npt.NDArray[np.float32]
Index = npt.NDArray[np.intp]


class Normalize(Protocol):
    """``normalize`` of the server."""

    def __call__(self, embeddings: Float32) -> Float32:
        """Divide each embedding, float32 [N, D], by its L2 norm; zero stays zero."""


_module = load_served_module("cluster_head", "scoring")
normalize: Normalize = _module.normalize
Comparer: Any = _module.Comparer
best_class: Any = _module.best_class
