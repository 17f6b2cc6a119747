"""The release works alone: ``python -m tests.release`` builds it and runs the demonstration with nothing else.

Wheel and sdist go to ``dist/``. The wheel, built from the sdist, is installed with its extras in an empty environment.
There, in an empty folder, the commands export, serve, classify and evaluate the demonstration's trained resources.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

from examples.demonstration.held_out import ACCURACY_GOAL
from examples.demonstration.layout import Layout
from examples.demonstration.prepare import prepare_demonstration
from inference_server.triton.process import free_ports, start_child, stop
from tests.checkout import CHECKOUT

DIST = CHECKOUT / "dist"
LAYOUT = Layout(out=CHECKOUT / "build" / "demonstration")
START_TIMEOUT_S = 60.0


def main() -> None:
    """Build, install, export, serve, classify, evaluate; exit with a message at the first failure."""
    prepare_demonstration(LAYOUT)
    wheel, sdist = build()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = install(wheel, folder / "environment")
        work = folder / "work"
        work.mkdir()
        for part, target in ((LAYOUT.resources, "trained"), (LAYOUT.part("base"), "base"), (LAYOUT.part("query"), "q")):
            shutil.copytree(part, work / target)
        run("export-repository", "-r", "trained", "-data", "base", "--image_size", "64", folder=work, env=environment)
        run("inspect-repository", folder=work, env=environment)
        accuracy = serve_and_evaluate(work, environment)
        if accuracy < ACCURACY_GOAL:
            sys.exit(f"held-out accuracy {accuracy:.3f}: below {ACCURACY_GOAL}")
        with tarfile.open(sdist) as archive:
            archive.extractall(folder / "source", filter="data")
        (source,) = (folder / "source").iterdir()
        missing = [
            path
            for path in ("Makefile", "README.md", "docs", "deploy", "tests", ".ci/run")
            if not (source / path).exists()
        ]
        if missing:
            sys.exit(f"{sdist.name} lacks {', '.join(missing)}")
    print(f"{wheel.name} and {sdist.name}: exported, served and evaluated alone; held-out accuracy {accuracy:.3f}")


def build() -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it."""
    shutil.rmtree(DIST, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "build", "--outdir", DIST, CHECKOUT], check=True, stdout=sys.stderr)
    (wheel,) = DIST.glob("*.whl")
    (sdist,) = DIST.glob("*.tar.gz")
    return wheel, sdist


def install(wheel: Path, folder: Path) -> dict[str, str]:
    """Install the wheel with its extras in a new environment, and return its environment variables."""
    venv.create(folder, with_pip=True)
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VIRTUAL_ENV": str(folder),
        "PIP_CONSTRAINT": str(CHECKOUT / "constraints.txt"),
    }
    run("pip", "install", "--quiet", f"{wheel}[export,server,report]", folder=folder, env=environment)
    return environment


def serve_and_evaluate(folder: Path, environment: dict[str, str]) -> float:
    """Run tritonserver on the exported repository, classify all held-out images, and return the accuracy."""
    http, grpc, metrics = free_ports(3)
    ports = (f"--http-port={http}", f"--grpc-port={grpc}", f"--metrics-port={metrics}")
    program = shutil.which("tritonserver", path=environment["PATH"]) or "tritonserver"
    with (folder / "log").open("wb") as log:
        server = start_child(
            [program, f"--model-repository={folder / 'model_repository'}", *ports], environment=environment, output=log
        )
    url = f"http://127.0.0.1:{http}"
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_ready(url):
            if server.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"tritonserver did not start:\n{(folder / 'log').read_text()[-3000:]}")
            time.sleep(0.2)
        run("classify", "-ip", url, "-l", str(next((folder / "q").rglob("*.*g"))), folder=folder, env=environment)
        run("classify-evaluate", "q", "-ip", url, "-data", "base", folder=folder, env=environment)
    finally:
        stop(server)
    evaluation = json.loads((folder / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    return float(evaluation["accuracy"]["share"])


def run(*command: str, folder: Path, env: dict[str, str]) -> None:
    """Show a command and run it in a folder; exit if it fails."""
    print(f"$ {' '.join(command)}", flush=True)
    program = shutil.which(command[0], path=env["PATH"]) or command[0]
    completed = subprocess.run([program, *command[1:]], cwd=folder, env=env, check=False)
    if completed.returncode:
        sys.exit(f"{command[0]} ended with code {completed.returncode}")


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False


if __name__ == "__main__":
    main()
