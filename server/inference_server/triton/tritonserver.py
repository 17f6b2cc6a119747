"""The command ``tritonserver``: finds the real one, prepares what it needs, and becomes it."""

from __future__ import annotations

import ctypes.util
import hashlib
import itertools
import os
import platform
import resource
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from inference_client.command_line.extras import MissingExtraError, require_extras
from inference_client.settings import CLIENT_ID_HEADER
from inference_export.repository.configs import CONFIG_FILE, ENSEMBLE
from inference_export.repository.repository import exported_version
from inference_server.triton.standard_streams import open_standard_streams

CONTAINER_BINARY = Path("/opt/tritonserver/bin/tritonserver")
LOOPBACK = "127.0.0.1"
REPOSITORY_OPTIONS = ("--model-repository", "--model-store")
ADDRESS_OPTIONS = ("--http-address", "--grpc-address", "--metrics-address")
# Exactly the header that names a client, in any case.
FORWARD_CLIENT_ID = ("--http-header-forward-pattern", f"(?i)^{CLIENT_ID_HEADER.lower()}$")
# What strangers have no business with; the header and the name of the key, which gRPC prefixes.
CLOSED_APIS = ("model-repository", "logging", "trace", "shared-memory")
HTTP_KEY_HEADER, GRPC_KEY_NAME = "X-Admin-Key", "admin-key"
RESTRICT_HTTP, RESTRICT_GRPC = "--http-restricted-api", "--grpc-restricted-protocol"
# A form-encoded body of half as many bytes crashes Triton, unless its threads have larger stacks than usual.
STACK_BYTES = 2**30
# Each connection takes a file; without any left, Triton accepts none, and spends its time on saying so.
LEAST_OPEN_FILES = 4096
# From 25.08 on. The gateway's limit: an image file of 64 MiB in base64, and some JSON around it.
MAX_BODY_BYTES = 96 << 20
LIMIT_BODIES = "--http-max-input-size"
GPU_DRIVER = Path("/dev/nvidiactl")
SHORTEST_OPTION = len("--x")
SUPPORTED_PYTHONS = ((3, 11), (3, 12))
_ELF_MAGIC = b"\x7fELF"
_BACKENDS = Path(__file__).parents[1] / "backends"


class ServerError(RuntimeError):
    """No tritonserver can be started here; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to execute.

    Args:
        arguments: The binary and its arguments.
        environment: The environment variables.
        notes: What was added to the user's arguments, in words.
    """

    arguments: list[str]
    environment: dict[str, str]
    notes: list[str]


HELP = f"""Usage: tritonserver [TRITON_OPTION...]

  Run NVIDIA's tritonserver: the one at {CONTAINER_BINARY} or on PATH, with the
  options as they are; otherwise the one that nvidia-pytriton carries.

  The latter also gets its backends (Python, and ONNX Runtime in Python), the
  header {CLIENT_ID_HEADER} forwarded to the models, and, unless you name others,
  {LOOPBACK} as address of HTTP (port 8000), gRPC (8001) and metrics (8002).
  The APIs for {", ".join(CLOSED_APIS)}
  are closed, unless you give them a key of yours with {RESTRICT_HTTP}
  or {RESTRICT_GRPC}.

  Example:
    tritonserver --model-repository model_repository

Triton's own help:
"""


def main() -> NoReturn:
    """Become tritonserver, with this process's arguments."""
    open_standard_streams()
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(HELP, flush=True)  # noqa: T201
        arguments = ["--help"]
    try:
        command = tritonserver_command(arguments)
        if find_installed_binary() is None:
            _require_export(arguments)
        raise_open_files_limit()
    except (ServerError, MissingExtraError) as error:
        sys.exit(f"tritonserver: {error}")
    become(command)


def become(command: Command) -> NoReturn:
    """Replace this process by the command."""
    for note in command.notes:
        print(f"tritonserver: {note}", file=sys.stderr, flush=True)  # noqa: T201
    raise_stack_limit()
    os.execve(command.arguments[0], command.arguments, command.environment)  # noqa: S606


def raise_open_files_limit() -> None:
    """Let what is executed next have as many open files as this process may have.

    Raises:
        ServerError: These are fewer than ``LEAST_OPEN_FILES``.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < LEAST_OPEN_FILES:
        raise ServerError(
            f"at most {hard} files may be open here, and each connection takes one: {LEAST_OPEN_FILES} are needed. "
            f"Raise the hard limit: LimitNOFILE= of systemd, --ulimit nofile= of Docker, or ulimit -n as root."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def raise_stack_limit() -> None:
    """Give the threads of what is executed next stacks that are as large as this process may have, up to a limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))


def body_limit(arguments: Sequence[str]) -> list[str]:
    """Give the option that limits bodies, if there is an installed binary that knows it and the arguments do not."""
    binary = find_installed_binary()
    if binary is None or names_option(arguments, LIMIT_BODIES):
        return []
    shown = subprocess.run([binary, "--help"], capture_output=True, check=False)
    known = LIMIT_BODIES.encode() in shown.stdout + shown.stderr
    return [f"{LIMIT_BODIES}={MAX_BODY_BYTES}"] if known else []


def restrictions(key: str) -> dict[str, str]:
    """Give Triton's options that close ``CLOSED_APIS`` to whoever has not the key."""
    apis = ",".join(CLOSED_APIS)
    return {RESTRICT_HTTP: f"{apis}:{HTTP_KEY_HEADER}={key}", RESTRICT_GRPC: f"{apis}:{GRPC_KEY_NAME}={key}"}


def tritonserver_command(arguments: Sequence[str], *, extras: Sequence[str] = ("server",)) -> Command:
    """Find a tritonserver and say how to start it.

    Args:
        arguments: Triton's own arguments.
        extras: What must be installed where there is no binary, ``server`` among it.

    Returns:
        A binary in the container's usual path or on PATH, with the arguments as they are; otherwise nvidia-pytriton's,
        with a backend directory, loopback addresses and the forwarding of client ids unless the arguments name others.

    Raises:
        ServerError: The platform, Python or numpy does not suit pip's tritonserver, or a library is missing.
        MissingExtraError: There is no binary and an extra is not installed.
    """
    installed = find_installed_binary()
    if installed is not None:
        return Command(arguments=[str(installed), *arguments], environment=dict(os.environ), notes=[])
    _require_platform()
    require_extras(*extras)
    _require_numpy_1()
    package, libraries = _pytriton_folders()
    added = added_arguments(arguments)
    backends = [] if names_option(arguments, "--backend-directory") else [
        "--backend-directory", str(assemble_backends(package / "tritonserver"))
    ]  # fmt: skip
    return Command(
        arguments=[str(package / "tritonserver" / "bin" / "tritonserver"), *arguments, *backends, *added],
        environment=_environment(libraries),
        notes=_describe(added),
    )


def find_installed_binary() -> Path | None:
    """Find a native tritonserver in the container's path or on PATH; scripts, such as this command, do not count."""
    candidates = [CONTAINER_BINARY, *(Path(folder) / "tritonserver" for folder in os.get_exec_path())]
    return next((path for path in candidates if os.access(path, os.X_OK) and _is_elf(path)), None)


def added_arguments(arguments: Sequence[str]) -> list[str]:
    """Say what pip's tritonserver is started with beyond the user's arguments."""
    options = {
        **dict.fromkeys(ADDRESS_OPTIONS, LOOPBACK),
        **dict([FORWARD_CLIENT_ID]),
        **restrictions(secrets.token_urlsafe(32)),  # which nobody is told
        **({} if GPU_DRIVER.exists() else {"--allow-gpu-metrics": "false"}),  # whose absence it would call an error
    }
    return [f"{option}={value}" for option, value in options.items() if not names_option(arguments, option)]


def _describe(added: list[str]) -> list[str]:
    shown = [argument for argument in added if not argument.startswith((RESTRICT_HTTP, RESTRICT_GRPC))]
    closed = [option for option in (RESTRICT_HTTP, RESTRICT_GRPC) if any(each.startswith(option) for each in added)]
    return [
        *([f"added {' '.join(shown)}"] if shown else []),
        *([f"closed {', '.join(CLOSED_APIS)}; to use them, give a key with {' or '.join(closed)}"] if closed else []),
    ]


def assemble_backends(triton: Path) -> Path:
    """Lay the backends of pip's tritonserver out as it wants them.

    Args:
        triton: The ``tritonserver`` folder of the nvidia-pytriton package.

    Returns:
        A folder with ``python`` (pip's backend and the stub of the running Python) and ``onnxruntime`` (ours), kept in
        the virtual environment, or in the user's cache where that is read-only.

    Raises:
        ServerError: Neither place can be written.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    sources = {
        "python": [
            *(triton / "backends" / "python").glob("*.*"),
            triton / "python_backend_stubs" / python / "triton_python_backend_stub",
        ],
        **{folder.name: list(folder.glob("*.py")) for folder in _BACKENDS.iterdir() if folder.is_dir()},
    }
    digest = hashlib.sha256()
    for file in sorted(file for files in sources.values() for file in files):
        digest.update(f"{file}\n".encode() + hashlib.sha256(file.read_bytes()).digest())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for place in (Path(sys.prefix) / "share", cache):
        target = place / "inference-server" / digest.hexdigest()[:16]
        if target.is_dir():
            return target
        try:
            _copy_atomically(sources, target)
        except OSError:
            continue
        return target
    raise ServerError(f"neither {sys.prefix} nor {cache} can be written. Set XDG_CACHE_HOME to a folder that can.")


def _copy_atomically(sources: dict[str, list[Path]], target: Path) -> None:
    # Triton refuses links that lead out of the folder, so these are copies.
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        made = Path(temporary) / target.name
        for folder, files in sources.items():
            (made / folder).mkdir(parents=True)
            for file in files:
                shutil.copy(file, made / folder)
        (made / "python" / "triton_python_backend_stub").chmod(0o755)
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another start was faster
                raise


def _environment(libraries: Path) -> dict[str, str]:
    folders = [str(libraries), _libpython_folder(), os.environ.get("LD_LIBRARY_PATH", "")]
    # The stub takes its packages from the prefix of the first python3 on PATH.
    path = os.pathsep.join([str(Path(sys.prefix) / "bin"), *os.get_exec_path()])
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders)), "PATH": path}


def _libpython_folder() -> str:
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    for folder in (
        sysconfig.get_config_var("LIBDIR"),
        sysconfig.get_config_var("LIBPL"),
        str(Path(sys.base_prefix) / "lib"),
    ):
        if folder and (Path(folder) / name).exists():
            return str(folder)
    short = name.removeprefix("lib").split(".so")[0]
    if ctypes.util.find_library(short) == name:  # in the loader's own path
        return ""
    raise ServerError(
        f"{name} is missing, which pip's tritonserver needs to run Python models. On Debian and Ubuntu:\n"
        f"  apt-get install lib{short}\n"
        f"Elsewhere use a Python that was built with --enable-shared."
    )


def _require_platform() -> None:
    here = f"{platform.system()} {platform.machine()}, {platform.python_implementation()} {platform.python_version()}"
    if (platform.system(), platform.machine(), platform.python_implementation()) != ("Linux", "x86_64", "CPython") or (
        sys.version_info[:2] not in SUPPORTED_PYTHONS
    ):
        supported = " or ".join(f"{major}.{minor}" for major, minor in SUPPORTED_PYTHONS)
        raise ServerError(
            f"no tritonserver at {CONTAINER_BINARY} or on PATH, and pip's needs Linux x86_64 with CPython {supported}; "
            f"this is {here}.\nServe the repository with NVIDIA's Triton container instead, or use such a Python."
        )


def _require_export(arguments: Sequence[str]) -> None:
    """Refuse a repository of ours without an export in it, of which Triton would only say that it can't load it."""
    for argument, following in itertools.pairwise([*arguments, ""]):
        option, _, value = argument.partition("=")
        repository = Path(value or following)
        ours = repository / ENSEMBLE / CONFIG_FILE
        if option in REPOSITORY_OPTIONS and ours.is_file() and exported_version(repository) is None:
            raise ServerError(f"{repository} holds no export yet. Run export-repository -r RESOURCES first.")


def _require_numpy_1() -> None:
    if int(version("numpy").split(".")[0]) > 1:
        raise ServerError(
            f"numpy {version('numpy')} is installed, and pip's tritonserver is built for numpy 1: its models would "
            f"read wrong values.\n  pip install 'numpy<2'"
        )


def _pytriton_folders() -> tuple[Path, Path]:
    spec = find_spec("pytriton")  # without importing it
    if spec is None or spec.origin is None:
        raise ServerError("nvidia-pytriton is damaged. pip install --force-reinstall nvidia-pytriton")
    package = Path(spec.origin).parent
    return package, package.parent / "nvidia_pytriton.libs"


def names_option(arguments: Sequence[str], option: str) -> bool:
    """Say whether Triton's arguments give an option, as ``--option value`` or ``--option=value``, or cut short."""
    names = (argument.partition("=")[0] for argument in arguments)
    return any(len(name) >= SHORTEST_OPTION and option.startswith(name) for name in names)


def _is_elf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_ELF_MAGIC)) == _ELF_MAGIC
    except OSError:
        return False


if __name__ == "__main__":
    main()
