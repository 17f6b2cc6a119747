"""Where the hand-written part of a model repository lies, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path


def template_directory() -> Path:
    """Find the template of the model repository.

    Returns:
        The folder with each model's ``config.pbtxt`` and ``1/*.py``: inside the installed package, or the checkout's
        ``model_repository``, in which exports may lie as well.
    """
    package = Path(__file__).resolve().parent
    installed = package / "model_repository"
    return installed if installed.is_dir() else package.parents[1] / "model_repository"


def model_files(model: str) -> list[Path]:
    """List the Python files of a model's version folder, sorted by name.

    Args:
        model: ``preprocess``, ``classifier``, ``cluster_head`` or ``ensemble``.
    """
    return sorted((template_directory() / model / "1").glob("*.py"))
