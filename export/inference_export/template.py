"""The hand-written part of a model repository: where it lies, in a checkout and in a wheel, and its modules."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType

MAX_SOURCE_BYTES = 2**24  # of a Python file
# What both Python models import lies once, beside the first one's files.
SHARED_FROM, SHARED_WITH = "preprocess", "cluster_head"
SHARED_FILES = ("access_log.py", "parameters.py", "reasons.py")


def template_directory() -> Path:
    """Find the template of the model repository.

    Returns:
        The folder with each model's ``config.pbtxt`` and ``1/*.py``: inside the installed package, or the checkout's
        ``model_repository``, in which exports may lie as well.
    """
    package = Path(__file__).resolve().parent
    installed = package / "model_repository"
    return installed if installed.is_dir() else package.parents[1] / "model_repository"


def template_files(model: str) -> dict[str, Path]:
    """List the Python files that belong into a model's version folder.

    Args:
        model: The model's name.

    Returns:
        File name to the template's file, sorted by name. ``SHARED_FILES`` come from one place for both Python models,
        also where an export into the checkout has laid copies into the other one's folder.
    """
    files = {file.name: file for file in (template_directory() / model / "1").glob("*.py")}
    if model == SHARED_WITH:
        files |= {name: template_directory() / SHARED_FROM / "1" / name for name in SHARED_FILES}
    return dict(sorted(files.items()))


def load_served_module(model: str, name: str) -> ModuleType:
    """Load a module that a model imports while serving, so that the export needs no second copy of it.

    Args:
        model: ``preprocess`` or ``cluster_head``.
        name: The module's name, without ``.py``.

    Returns:
        The module. Neither it nor the model's other modules that it imports stay importable by their plain names.
    """
    finder = _TemplateFinder(model)
    hidden = {other: sys.modules.pop(other) for other in finder.files if other in sys.modules}
    sys.meta_path.insert(0, finder)
    try:
        return import_module(name)
    finally:
        sys.meta_path.remove(finder)
        for other in finder.files:
            sys.modules.pop(other, None)
        sys.modules.update(hidden)


class _TemplateFinder:
    """Finds the modules of one model by the names under which they import each other."""

    def __init__(self, model: str) -> None:
        self.files = {file.stem: file for file in template_files(model).values()}

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module; None for one that is not the model's."""
        return spec_from_loader(name, _UncachedLoader(name, str(self.files[name]))) if name in self.files else None


class _UncachedLoader(SourceFileLoader):
    """Writes no ``__pycache__``: Triton takes one in a version folder for a change and reloads the model."""

    def set_data(self, path: object, data: object, *, _mode: int = 0o666) -> None:
        """Keep the bytecode to ourselves."""
