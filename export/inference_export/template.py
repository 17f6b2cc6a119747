"""The template of a model repository: its folder, in a checkout or in a wheel, and its modules."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType

MAX_SOURCE_BYTES = 2**24  # of a Python file
# The modules that both Python models import. They lie beside the first model's own.
SHARED_FROM, SHARED_WITH = "preprocess", "cluster_head"
SHARED_FILES = (
    "access_log.py", "background.py", "constants.py", "metric_families.py", "parameters.py", "reasons.py",
)  # fmt: skip


def template_directory() -> Path:
    """Find the template of the model repository.

    Returns:
        The folder with each model's ``config.pbtxt`` and ``1/*.py``: inside the installed package, or the checkout's
        ``model_repository``, which may hold exports too.
    """
    package = Path(__file__).resolve().parent
    installed = package / "model_repository"
    return installed if installed.is_dir() else package.parents[1] / "model_repository"


def template_files(model: str) -> dict[str, Path]:
    """List the Python files that belong in a model's version folder.

    Args:
        model: The model's name.

    Returns:
        File name to the template's file, sorted by name. ``SHARED_FILES`` always come from ``SHARED_FROM``: an export
        into the checkout puts copies into the folder of ``SHARED_WITH``.
    """
    files = {file.name: file for file in (template_directory() / model / "1").glob("*.py")}
    if model == SHARED_WITH:
        files |= {name: template_directory() / SHARED_FROM / "1" / name for name in SHARED_FILES}
    return dict(sorted(files.items()))


def load_served_module(model: str, name: str) -> ModuleType:
    """Load a module that a model imports while serving, so that the export needs no copy of it.

    Args:
        model: ``preprocess`` or ``cluster_head``.
        name: The module's name, without ``.py``.

    Returns:
        The module. Afterwards the model's modules are not importable by their plain names.
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
    """Finds the modules of one model by their plain names, under which they import each other."""

    def __init__(self, model: str) -> None:
        self.files = {file.stem: file for file in template_files(model).values()}

    def find_spec(self, name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        """Find a module; None for one that is not the model's."""
        return spec_from_loader(name, _UncachedLoader(name, str(self.files[name]))) if name in self.files else None


class _UncachedLoader(SourceFileLoader):
    """Writes no ``__pycache__``: a new one in a version folder makes Triton reload the model."""

    def set_data(self, path: object, data: object, *, _mode: int = 0o666) -> None:
        """Write nothing."""
