"""What the engine's images are made of: Debian's packages and wheels, got where this machine's network is."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.checkout import CHECKOUT
from tests.deploy.manifests import DEPLOY, DOCKERFILE
from tests.deploy.requirements import CONSTRAINTS, FILES, tested_versions

PROGRAMS = ("mmdebstrap", "gcc")
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
SUITE = "bookworm"
PROJECT = CHECKOUT / "pyproject.toml"
# In each system: what an image's own files and the programs that are copied into it need.
SYSTEMS: Mapping[str, Sequence[str]] = {
    "base": ("ca-certificates", "libffi8", "libpython3.11", "libsqlite3-0", "libssl3", "netcat-openbsd", "python3",
             "python3-pip"),
    "systemd": ("dbus", "libgomp1", "libpython3.11", "procps", "python3-venv", "systemd-sysv"),
    "monitoring": ("prometheus", "prometheus-alertmanager", "wget"),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Materials:
    """Files on this machine.

    Attributes:
        systems: Archives of Debian systems, by name.
        wheels: Folder of all wheels that the images install.
        python312: Prefix of a CPython 3.12, which NVIDIA's image has and Debian 12 lacks.
    """

    systems: Mapping[str, Path]
    wheels: Path
    python312: Path


def obstacle() -> str | None:
    """Say what is missing here; None if nothing is."""
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"missing: {', '.join(missing)}"
    if _find_python312() is None:
        return "there is no CPython 3.12 here with a prefix of its own, as pyenv makes one, for NVIDIA's image"
    return None


def get_materials(folder: Path) -> Materials:
    """Get everything that the folder does not hold yet.

    Raises:
        subprocess.CalledProcessError: A package can't be had; the command has said why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    python312 = _find_python312()
    assert python312 is not None, "obstacle() says so"
    with ThreadPoolExecutor() as threads:
        wheels = threads.submit(_download_wheels, folder)
        systems = {
            name: threads.submit(_make_system, folder / f"{name}-{_digest(*packages)}.tar", packages)
            for name, packages in SYSTEMS.items()
        }
        return Materials(
            systems={name: made.result() for name, made in systems.items()},
            wheels=wheels.result(),
            python312=python312,
        )


def _make_system(archive: Path, packages: Sequence[str]) -> Path:
    if not archive.exists():
        part = archive.with_suffix(".part.tar")
        _run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}", SUITE, part)
        part.rename(archive)
    return archive


def _download_wheels(folder: Path) -> Path:
    torch = tested_versions()["torch"]
    needed = [CONSTRAINTS, PROJECT, *(DEPLOY / name for name in FILES)]
    target = folder / f"wheels-{_digest(*(file.read_text(encoding='utf-8') for file in needed))}"
    if not target.exists():
        part = target.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        download = f"{sys.executable} -m pip download --quiet --no-deps --only-binary :all: --dest".split()
        download.append(str(part))
        for name, targets in FILES.items():
            for python in sorted({python for python, machine in targets if machine == "x86_64"}):
                _run(*download, "--require-hashes", "--python-version", python, "-r", DEPLOY / name)
        server = [*download, "--constraint", CONSTRAINTS, "--python-version", "3.11"]
        server.remove("--no-deps")
        _run(*server, "hatchling", *_server_packages())
        for_cpu = [*download, "--python-version", "3.11", f"torch=={torch}+cpu"]
        if subprocess.run([*map(str, for_cpu)], capture_output=True, check=False).returncode:
            _run(*for_cpu, "--index-url", TORCH_INDEX)
        part.rename(target)
    return target


def _server_packages() -> list[str]:
    """List what `pip install '.[server,console]'` asks for."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    packages: list[str] = [*project["dependencies"], *extras["server"], *extras["console"]]
    return packages


def _find_python312() -> Path | None:
    """Find a CPython 3.12 with a prefix of its own, which can be copied."""
    candidates = [*(Path.home() / ".pyenv" / "versions").glob("3.12.*/bin/python3.12"), shutil.which("python3.12")]
    for candidate in filter(None, candidates):
        command = [
            str(candidate),
            "-c",
            "import sys, sysconfig; print(sys.base_prefix, sysconfig.get_config_var('Py_ENABLE_SHARED'))",
        ]
        prefix, shared = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        if shared == "1" and Path(prefix) not in {Path("/usr"), Path("/")}:
            return Path(prefix)
    return None


def triton_release() -> str:
    """Read which release of NVIDIA's image the Dockerfile names."""
    (release,) = re.findall(r"^ARG TRITON=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
    return str(release)


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _run(*command: object) -> None:
    subprocess.run([*map(str, command)], check=True)
