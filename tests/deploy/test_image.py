"""The images hold all packages that the server and the models import, in the tested versions."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy import requirements
from tests.deploy.manifests import CPU_DOCKERFILE, DEPLOY, DOCKERFILE, instructions


@pytest.mark.parametrize("dockerfile", [DOCKERFILE, CPU_DOCKERFILE], ids=lambda file: file.name)
def test_image_is_built_from_files_that_exist_and_runs_without_root(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    sources = [word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for word in line.split()]
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert set(sources) >= {package.partition("/")[0] for package in packages}, (
        "a part of the wheel is not in the image"
    )
    ignored = dockerfile.with_name(f"{dockerfile.name}.dockerignore").read_text()
    for source in sources:
        assert (DEPLOY.parent / source).exists()
        assert f"\n!{source}\n" in ignored
    assert instructions(text)["USER"][-1] == "1000:1000"


@pytest.mark.parametrize("file", requirements.FILES)
def test_image_takes_each_package_by_its_hash_in_the_tested_version(file: str) -> None:
    tested = requirements.tested_versions()
    for name, version in _pins(file).items():
        assert tested[name] == version, name


@pytest.mark.parametrize(
    ("dockerfile", "count", "unhashed"),
    [
        pytest.param(DOCKERFILE, 3, 0, id="for-gpu-and-cpu"),
        pytest.param(CPU_DOCKERFILE, 5, 1, id="cpu"),  # PyTorch's own index has a build of its own for each machine
    ],
)
def test_every_pip_of_the_image_takes_hashes_or_our_own_wheel(dockerfile: Path, count: int, unhashed: int) -> None:
    """Without dependencies, which would come unpinned; the files beside these are let into the build."""
    text = dockerfile.read_text().replace("\\\n", " ")
    installs = [options.split() for options in re.findall(r"pip install (.*?)(?:&&|$)", text, re.MULTILINE)]
    assert len(installs) == count
    assert all("--no-deps" in words for words in installs)
    others = [words[-1] for words in installs if not {"--require-hashes", "-r"} <= set(words)]
    assert others.count("/wheels/*.whl") == 1
    assert [word for word in others if word != "/wheels/*.whl"] == ['"torch==${TORCH}"'] * unhashed
    ignored = dockerfile.with_name(f"{dockerfile.name}.dockerignore").read_text()
    bound = re.findall(r"source=(deploy/\S+?),", text)
    assert {Path(source).name for source in bound} <= set(requirements.FILES)
    for source in bound:
        assert f"\n!{source}\n" in ignored


def test_cpu_image_has_the_tested_pytorch() -> None:
    (torch,) = re.findall(r"^ARG TORCH=(\S+)$", CPU_DOCKERFILE.read_text(), re.MULTILINE)
    assert torch == requirements.tested_versions()["torch"]


def test_what_builds_the_wheel_is_pinned_with_all_that_it_depends_on() -> None:
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    container = {"python_version": "3.12", "python_full_version": "3.12.0", "extra": ""}
    names, waiting = set(), [Requirement(text) for text in project["build-system"]["requires"]]
    while waiting:
        needed = waiting.pop()
        name = canonicalize_name(needed.name)
        if name not in names and (needed.marker is None or needed.marker.evaluate(container)):
            assert needed.specifier.contains(_pins("build-requirements.txt").get(name, "0")), needed
            names.add(name)
            waiting += map(Requirement, distribution(name).requires or ())
    assert names == set(_pins("build-requirements.txt"))


@pytest.mark.parametrize(
    ("extra", "files"),
    [
        ("server", ["requirements.txt", "requirements-cpu.txt"]),
        ("console", ["requirements-console.txt"]),
        ("export", ["requirements.txt", "requirements-cpu.txt", "requirements-export.txt"]),
    ],
)
def test_cpu_image_has_every_package_of_an_extra(extra: str, files: list[str]) -> None:
    needed = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    pins = {name for file in files for name in _pins(file)}
    # The Dockerfile takes PyTorch from an index of its own.
    assert {canonicalize_name(Requirement(text).name) for text in needed} <= {*pins, "torch"}


def _pins(file: str) -> dict[str, str]:
    text = (DEPLOY / file).read_text()
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE))
    assert len(pins) == text.count("==")
    return pins


# The import of a package that the image lacks fails here as in the container.
_WITHOUT_OTHERS = """
import sys, importlib.metadata as metadata
installed = {name.lower().replace('_', '-') for name in sys.argv[1].split(',')}
owners = metadata.packages_distributions()
class Stranger:
    def find_spec(self, name, path=None, target=None):
        top = name.partition('.')[0]
        names = {each.lower().replace('_', '-') for each in owners.get(top, ())}
        if names and not names & installed:
            raise ModuleNotFoundError(name, name=top)
sys.meta_path.insert(0, Stranger())
"""
_SERVER = """
from inference_server import command
from inference_server.base_set import command as base_set_command
from inference_server.base_set.watch_metrics import WatchMetrics
from inference_server.reload import command as reload_command
from inference_server.triton.model_control import ModelControl
import onnxruntime, tritonclient.grpc
WatchMetrics()
for folder in sys.argv[2:]:
    sys.path.insert(0, folder)
import preprocessing, heads
command.main(['--check', '--port', '1'])
"""
_CONSOLE = """
import asyncio
from inference_console.console import Console
from inference_console.serving import create_app
from inference_console.settings import Settings
create_app(Settings()).openapi()
async def ask():
    console = Console(Settings(server_url='http://127.0.0.1:1'))
    print((await console.server.ask()).message)
    await console.close()
asyncio.run(ask())
"""


def _run_with_the_packages_of(files: list[str], script: str, *folders: str) -> subprocess.CompletedProcess[str]:
    names = ",".join([*(name for file in files for name in _pins(file)), "classify-triton"])
    command = [sys.executable, "-c", _WITHOUT_OTHERS + script, names, *folders]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_image_installs_all_that_the_server_and_the_models_import(small_clustering: Path) -> None:
    folders = [str(small_clustering / model / "1") for model in ("preprocess", "cluster_head")]
    result = _run_with_the_packages_of(["requirements.txt"], _SERVER, *folders)
    assert result.returncode == 1
    assert "gave no label: Connection refused. Is inference-server or tritonserver running there" in result.stderr, (
        result.stderr
    )


def test_image_installs_all_that_the_console_imports() -> None:
    result = _run_with_the_packages_of(["requirements.txt", "requirements-console.txt"], _CONSOLE)
    assert result.returncode == 0, result.stderr
    assert "refused the connection" in result.stdout


def test_every_folder_of_an_export_holds_a_file_so_that_an_object_store_keeps_it(small_clustering: Path) -> None:
    for folder in small_clustering.rglob("*"):
        assert not folder.is_dir() or any(folder.iterdir()), folder
