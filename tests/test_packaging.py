"""What the wheel holds, and that it works outside the checkout."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from inference_client import Classify
from inference_export.extras import EXTRA_PACKAGES
from inference_export.template import template_directory
from tests.conftest import SMALL, Trained, export

CHECKOUT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, small: Trained) -> Path:
    """A wheel built in a copy of the checkout that holds an export."""
    folder = tmp_path_factory.mktemp("checkout")
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, tracked):
        if (CHECKOUT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(CHECKOUT / name, folder / name)
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    export(small, folder / "model_repository")
    assert (folder / "model_repository" / "classifier" / "1" / "model.onnx").is_file()
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder / "out"), str(folder)],
        capture_output=True, check=True,
    )  # fmt: skip
    (built,) = (folder / "out").glob("*.whl")
    return built


def test_wheel_built_beside_an_export_holds_the_template_and_nothing_of_the_export(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=template_directory(), capture_output=True, text=True, check=True
    ).stdout.split()
    prefix = "inference_export/model_repository/"
    found = {name.removeprefix(prefix) for name in zipfile.ZipFile(wheel).namelist() if name.startswith(prefix)}
    assert found == set(tracked)


def test_wheel_holds_the_backend_the_license_and_the_type_markers(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "inference_server/backends/onnxruntime/model.py", "inference_server/backends/onnxruntime/session.py",
        "inference_client/py.typed", "inference_export/py.typed", "inference_server/py.typed",
    ):  # fmt: skip
        assert wanted in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "examples/", "bench/")) for name in names)


def test_installed_wheel_exports_serves_and_classifies_in_an_empty_folder(
    wheel: Path, small: Trained, base_data: dict[str, list[Path]], query_images: list[Path], tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    binaries = environment / "bin"
    subprocess.run([binaries / "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    site = next(environment.glob("lib/python*/site-packages"))
    # The packages of the extras are those of this environment; its link to the checkout is not followed.
    (site / "extras.pth").write_text(sysconfig.get_path("purelib") + "\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    base = next(iter(base_data.values()))[0].parents[1]
    plain = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(
        [binaries / "export-repository", "-r", str(small.folder), "-data", str(base), "--image_size", str(SMALL)],
        cwd=empty, env=plain, check=True,
    )  # fmt: skip
    script = (
        "import inference_export, sys, pathlib\n"
        "assert pathlib.Path(inference_export.__file__).is_relative_to(sys.prefix), inference_export.__file__\n"
        "from inference_server.process import running_server\n"
        "with running_server(pathlib.Path('model_repository'), log=pathlib.Path('log')) as server:\n"
        "    print(server.url, flush=True); input()\n"
    )
    with subprocess.Popen(
        [binaries / "python", "-c", script],
        cwd=empty,
        env=plain,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url, (empty / "log").read_text()
        with Classify(url, details=True) as classify:
            results, status = classify(query_images)
        process.communicate("\n", timeout=60)
    assert status == 200
    assert all(row["Neighbors"] for row in results)


def test_every_named_extra_and_its_packages_are_in_the_project() -> None:
    extras = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, packages in EXTRA_PACKAGES.items():
        for package in packages:
            assert any(line.startswith(package) for line in extras[extra]), (extra, package)
            assert any(line.startswith(package) for line in extras["gpu"]), package
    assert {"export", "server", "gpu", "bench", "dev"} <= set(extras)


def test_python_of_the_model_repository_is_python_3_10() -> None:
    files = list(template_directory().glob("*/1/*.py"))
    assert files
    for file in files:
        ast.parse(file.read_text(), feature_version=(3, 10))
