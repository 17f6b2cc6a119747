"""Pins what the images install: ``python -m tests.deploy.requirements`` writes versions and hashes into ``deploy/``.

Each file keeps its comments and the names of its packages; the versions are those of ``constraints.txt``.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.checkout import CHECKOUT

CONSTRAINTS = CHECKOUT / "constraints.txt"
_IMAGE_312 = (("3.12", "x86_64"), ("3.12", "aarch64"))
_IMAGE_CPU = (("3.11", "x86_64"),)
# The CPythons and processors of the images that install each file.
FILES = {
    "build-requirements.txt": (*_IMAGE_312, *_IMAGE_CPU),
    "requirements.txt": (*_IMAGE_312, *_IMAGE_CPU),
    "requirements-console.txt": (*_IMAGE_312, *_IMAGE_CPU),
    "requirements-cpu.txt": _IMAGE_CPU,
    "requirements-export.txt": _IMAGE_CPU,
}
_NEWEST_GLIBC, _OLDEST_GLIBC = 35, 5  # 2.35 is Ubuntu 22.04's


def main() -> None:
    """Write all files."""
    versions = tested_versions()
    for name, targets in FILES.items():
        file = CHECKOUT / "deploy" / name
        text = file.read_text(encoding="utf-8")
        comments = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
        pins = [_pin(package, versions[package], targets) for package in pinned(text)]
        file.write_text(comments + "".join(pins), encoding="utf-8")


def tested_versions() -> dict[str, str]:
    """Read the versions that the tests run with."""
    pins = re.findall(r"^([\w.-]+)==(\S+)$", CONSTRAINTS.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins}


def pinned(requirements: str) -> dict[str, str]:
    """Read the versions of a file's packages."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", requirements, re.MULTILINE))


def _pin(package: str, version: str, targets: tuple[tuple[str, str], ...]) -> str:
    hashes = sorted({_hash(f"{package}=={version}", *target) for target in targets})
    return f"{package}=={version}" + "".join(f" \\\n    --hash=sha256:{each}" for each in hashes) + "\n"


def _hash(requirement: str, python: str, machine: str) -> str:
    glibcs = [f"manylinux_2_{minor}_{machine}" for minor in range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1)]
    platforms = [*glibcs, f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}"]
    options = [word for platform in platforms for word in ("--platform", platform)]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
             "--python-version", python, *options, "--dest", folder, requirement],
            check=True,
        )  # fmt: skip
        (file,) = Path(folder).iterdir()
        return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
