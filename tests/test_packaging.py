"""The contents of the wheel, and its work outside the checkout."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

from inference_client import Classify
from inference_client.command_line.extras import EXTRA_PACKAGES
from inference_client.version import __version__
from inference_export.template import template_directory
from tests.checkout import CHECKOUT
from tests.conftest import SMALL, Trained


def test_sdist_holds_what_is_tracked_and_nothing_of_an_export(built: Path) -> None:
    (file,) = built.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True
    ).stdout.split()  # fmt: skip
    assert set(tracked) - names == set()
    assert not [name for name in names if name.endswith((".onnx", ".npy"))]


def test_version_of_the_distribution_is_the_one_that_the_commands_say(wheel: Path) -> None:
    assert wheel.name.split("-")[1] == __version__
    text = (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(__version__)}\b", text, re.MULTILINE), "CHANGELOG.md has no such version"


def test_wheel_built_beside_an_export_holds_the_template_and_nothing_of_the_export(wheel: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=template_directory(), capture_output=True, text=True, check=True
    ).stdout.split()
    prefix = "inference_export/model_repository/"
    files = {name.removeprefix(prefix) for name in zipfile.ZipFile(wheel).namelist() if name.startswith(prefix)}
    assert files == set(tracked)


def test_wheel_holds_the_backend_the_license_and_the_type_markers(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "inference_server/backends/onnxruntime/model.py", "inference_server/backends/onnxruntime/session.py",
        "inference_client/py.typed", "inference_evaluation/py.typed", "inference_export/py.typed",
        "inference_server/py.typed",
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
    # The extras' packages come from this environment, but its link to the checkout is not followed.
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
        "from inference_server.triton.process import running_server\n"
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
            assert extra in {"console", "report"} or any(line.startswith(package) for line in extras["gpu"]), package
    assert {"export", "server", "gpu", "bench", "dev"} <= set(extras)


def test_python_of_the_model_repository_is_python_3_10() -> None:
    files = list(template_directory().glob("*/1/*.py"))
    assert files
    for file in files:
        ast.parse(file.read_text(), feature_version=(3, 10))
