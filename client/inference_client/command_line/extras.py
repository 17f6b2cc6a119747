"""Which extra brings which package, and what to say when one is missing."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "classify-triton"
# Packages that a command imports when it needs them, by the extra that brings them.
EXTRA_PACKAGES = {
    "export": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "server": ("nvidia-pytriton", "onnxruntime"),
    "report": ("jinja2", "matplotlib", "scikit-learn", "scipy"),
}
_GPU_NAMES = {"onnxruntime": "onnxruntime-gpu"}


class MissingExtraError(RuntimeError):
    """The environment lacks packages that a command needs, or holds two that exclude each other."""


def require_extras(*extras: str) -> None:
    """Check that extras are installed, without importing any of them.

    Args:
        extras: Any of ``EXTRA_PACKAGES``; the ``gpu`` extra stands for ``export`` and ``server``.

    Raises:
        MissingExtraError: A package of theirs is missing, or onnxruntime, one of them, is there twice.
    """
    names = dict.fromkeys(name for extra in extras for name in EXTRA_PACKAGES[extra])
    if "onnxruntime" in names:
        refuse_two_onnxruntimes()
    missing = [name for name in names if not (_installed(name) or _installed(_GPU_NAMES.get(name)))]
    if missing:
        instead = "" if extras == ("report",) else ", or gpu on a machine with an NVIDIA GPU"
        raise MissingExtraError(
            f"{', '.join(missing)} not installed. Install what is missing{instead}:\n"
            f"  pip install '{DISTRIBUTION}[{','.join(extras)}]'"
        )


def refuse_two_onnxruntimes() -> None:
    """Raise ``MissingExtraError`` if onnxruntime and onnxruntime-gpu, which overwrite each other, are both there."""
    cpu, gpu = _GPU_NAMES.copy().popitem()
    if _installed(cpu) and _installed(gpu):
        raise MissingExtraError(
            f"{cpu} and {gpu} are both installed, and overwrite each other's files. Remove both, then install the one "
            f"that you want:\n"
            f"  pip uninstall -y {cpu} {gpu}\n"
            f"  pip install '{DISTRIBUTION}[export,server]'   (CPU)\n"
            f"  pip install '{DISTRIBUTION}[gpu]'             (NVIDIA GPU)"
        )


def _installed(name: str | None) -> bool:
    try:
        return name is not None and bool(version(name))
    except PackageNotFoundError:
        return False
