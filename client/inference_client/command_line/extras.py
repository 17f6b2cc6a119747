"""Which packages each extra installs, and the message for one that is missing."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import click

DISTRIBUTION = "classify-triton"
# The packages of each extra. A command imports them only when it needs them.
EXTRA_PACKAGES = {
    "export": ("torch", "onnx", "onnxscript", "onnxruntime"),
    "server": ("onnxruntime",),
    "console": ("fastapi", "jinja2", "python-multipart", "uvicorn"),
    "report": ("jinja2", "matplotlib", "scikit-learn", "scipy"),
}
CPU_RUNTIME, GPU_RUNTIME = "onnxruntime", "onnxruntime-gpu"


class MissingExtraError(click.ClickException):
    """The environment lacks packages that a command needs, or has two that exclude each other."""


def require_extras(*extras: str, also: Sequence[str] = ()) -> None:
    """Check that extras are installed, without importing their packages.

    Args:
        extras: Names in ``EXTRA_PACKAGES``; the extra ``gpu`` also satisfies ``export`` and ``server``.
        also: More packages of these extras, which only some uses of a command need.

    Raises:
        MissingExtraError: A package is missing, or both builds of onnxruntime are installed.
    """
    names = dict.fromkeys(name for extra in extras for name in (*EXTRA_PACKAGES[extra], *also))
    if CPU_RUNTIME in names:
        refuse_two_onnxruntimes()
    missing = [name for name in names if not (_installed(name) or (name == CPU_RUNTIME and _installed(GPU_RUNTIME)))]
    if missing:
        gpu = (
            ""
            if not {"export", "server"} & {*extras}
            else "; on a machine with an NVIDIA GPU, install the extra gpu instead"
        )
        raise MissingExtraError(
            f"Packages are missing: {', '.join(missing)}. Install them{gpu}:\n"
            f"  pip install '{DISTRIBUTION}[{','.join(extras)}]'"
        )


def require_package(name: str, *, extra: str) -> None:
    """Check that one package of an extra is installed, without importing it.

    Raises:
        MissingExtraError: It is missing.
    """
    if not _installed(name):
        raise MissingExtraError(f"{name} is missing. Install it:\n  pip install '{DISTRIBUTION}[{extra}]'")


def refuse_two_onnxruntimes() -> None:
    """Refuse an environment with both builds of onnxruntime, which overwrite each other's files.

    Raises:
        MissingExtraError: Both are installed.
    """
    if _installed(CPU_RUNTIME) and _installed(GPU_RUNTIME):
        raise MissingExtraError(
            f"{CPU_RUNTIME} and {GPU_RUNTIME} are both installed, and overwrite each other's files. Remove both, then "
            "install the one that you need:\n"
            f"  pip uninstall -y {CPU_RUNTIME} {GPU_RUNTIME}\n"
            f"  pip install '{DISTRIBUTION}[export,server]'   (CPU)\n"
            f"  pip install '{DISTRIBUTION}[gpu]'             (NVIDIA GPU)"
        )


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False
