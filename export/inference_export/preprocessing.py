"""The server's own preprocessing, for the export: loaded from the template, so that there is no second copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType

import numpy as np
import numpy.typing as npt

from .template import template_directory


class _UncachedLoader(SourceFileLoader):
    """Writes no ``__pycache__``: Triton takes one in a version folder for a change and reloads the model."""

    def set_data(self, path: object, data: object, *, _mode: int = 0o666) -> None:
        """Keep the bytecode to ourselves."""


def _load() -> ModuleType:
    name = f"{__name__}_of_the_server"
    loader = _UncachedLoader(name, str(template_directory() / "preprocess" / "1" / "preprocessing.py"))
    spec = spec_from_loader(name, loader)
    assert spec is not None  # noqa: S101  (a loader always makes one)
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


_module = _load()
UndecodableImageError: type[ValueError] = _module.UndecodableImageError
decode_pixels: Callable[[bytes, int], npt.NDArray[np.uint8]] = _module.decode_pixels
decode_batch: Callable[[Sequence[bytes], int], tuple[npt.NDArray[np.uint8], list[str]]] = _module.decode_batch
