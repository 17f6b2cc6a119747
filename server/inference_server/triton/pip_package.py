"""The tritonserver that nvidia-pytriton installs: its requirements, folder and environment."""

from __future__ import annotations

import ctypes.util
import os
import platform
import sys
import sysconfig
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from inference_server.errors import ServerError
from inference_server.triton.binary import CONTAINER_BINARY

PIP_PACKAGES = ("nvidia-pytriton",)  # of the extra `server`; needless beside a native tritonserver
SUPPORTED_PYTHONS = ((3, 11), (3, 12))


def require_platform() -> None:
    """Check that pip's tritonserver runs on this platform and Python.

    Raises:
        ServerError: It does not run on this platform or Python.
    """
    here = f"{platform.system()} {platform.machine()}, {platform.python_implementation()} {platform.python_version()}"
    if (platform.system(), platform.machine(), platform.python_implementation()) != ("Linux", "x86_64", "CPython") or (
        sys.version_info[:2] not in SUPPORTED_PYTHONS
    ):
        supported = " or ".join(f"{major}.{minor}" for major, minor in SUPPORTED_PYTHONS)
        raise ServerError(
            f"there is no tritonserver at {CONTAINER_BINARY} or on PATH. pip's tritonserver needs Linux x86_64 with "
            f"CPython {supported}; this is {here}.\nServe the repository with NVIDIA's Triton container, or install "
            f"CPython {supported}."
        )


def require_numpy_1() -> None:
    """Check that numpy is the version that pip's tritonserver was built for.

    Raises:
        ServerError: numpy is newer; models would read wrong values without any error.
    """
    if int(version("numpy").split(".")[0]) > 1:
        raise ServerError(
            f"numpy {version('numpy')} is installed, but pip's tritonserver is built for numpy 1: its models would "
            f"read wrong values. Install numpy 1:\n  pip install 'numpy<2'"
        )


def pytriton_folder() -> Path:
    """Return the folder of the package ``pytriton``, without importing it.

    Raises:
        ServerError: The package is damaged.
    """
    spec = find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise ServerError("nvidia-pytriton is damaged. Reinstall it: pip install --force-reinstall nvidia-pytriton")
    return Path(spec.origin).parent


def environment(pytriton: Path) -> dict[str, str]:
    """Return the environment variables for pip's tritonserver and its model processes.

    Args:
        pytriton: The folder of the package ``pytriton``.

    Raises:
        ServerError: libpython is missing.
    """
    libraries = pytriton.parent / "nvidia_pytriton.libs"
    folders = [str(libraries), _libpython_folder(), os.environ.get("LD_LIBRARY_PATH", "")]
    # A model process takes its packages from the prefix of the first python3 on PATH.
    path = os.pathsep.join([str(Path(sys.prefix) / "bin"), *os.get_exec_path()])
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders)), "PATH": path}


def _libpython_folder() -> str:
    """Find the folder of libpython; "" if the loader finds the library by itself."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    for folder in (
        sysconfig.get_config_var("LIBDIR"),
        sysconfig.get_config_var("LIBPL"),
        str(Path(sys.base_prefix) / "lib"),
    ):
        if folder and (Path(folder) / name).exists():
            return str(folder)
    short = name.removeprefix("lib").split(".so")[0]
    if ctypes.util.find_library(short) == name:
        return ""
    raise ServerError(
        f"{name} is missing. Pip's tritonserver needs it to run Python models. On Debian and Ubuntu:\n"
        f"  apt-get install lib{short}\n"
        f"Elsewhere use a Python that was built with --enable-shared."
    )
