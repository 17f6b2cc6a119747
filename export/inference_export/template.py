"""The hand-written part of a model repository: where it lies, in a checkout and in a wheel, and its modules."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

MAX_SOURCE_BYTES = 2**24  # of a Python file


def template_directory() -> Path:
    """Find the template of the model repository.

    Returns:
        The folder with each model's ``config.pbtxt`` and ``1/*.py``: inside the installed package, or the checkout's
        ``model_repository``, in which exports may lie as well.
    """
    package = Path(__file__).resolve().parent
    installed = package / "model_repository"
    return installed if installed.is_dir() else package.parents[1] / "model_repository"


def load_served_module(model: str, name: str) -> ModuleType:
    """Load a module that a model imports while serving, so that the export needs no second copy of it.

    Args:
        model: ``preprocess`` or ``cluster_head``.
        name: The module's name, without ``.py``; it imports no other module of the model.
    """
    loader = _UncachedLoader(f"{__name__}.{model}.{name}", str(template_directory() / model / "1" / f"{name}.py"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None  # noqa: S101  (a loader always makes one)
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


class _UncachedLoader(SourceFileLoader):
    """Writes no ``__pycache__``: Triton takes one in a version folder for a change and reloads the model."""

    def set_data(self, path: object, data: object, *, _mode: int = 0o666) -> None:
        """Keep the bytecode to ourselves."""
