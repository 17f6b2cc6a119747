"""The image holds all packages that the server and the models import, in the tested versions."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.deploy.manifests import DEPLOY, DOCKERFILE, instructions


def test_image_is_built_from_files_that_exist_and_pins_what_it_installs() -> None:
    text = DOCKERFILE.read_text()
    sources = [word for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for word in line.split()]
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert set(sources) >= {package.partition("/")[0] for package in packages}, (
        "a part of the wheel is not in the image"
    )
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text()
    for source in sources:
        assert (DEPLOY.parent / source).exists()
        assert f"\n!{source}\n" in ignored
    assert instructions(text)["USER"] == ["1000:1000"]
    requirements = (DEPLOY / "requirements.txt").read_text()
    pins = dict(re.findall(r"^([a-z-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", requirements, re.MULTILINE))
    assert len(pins) == requirements.count("==")
    tested = dict(re.findall(r"^([\w.-]+)==(\S+)$", (DEPLOY.parent / "constraints.txt").read_text(), re.MULTILINE))
    tested = {name.lower().replace("_", "-"): version for name, version in tested.items()}
    for name, version in pins.items():
        assert tested[name] == version, name


def test_image_installs_all_that_the_server_and_the_models_import(small_clustering: Path) -> None:
    """The import of a package that the image lacks fails here as in the container."""
    script = """
import sys, importlib.metadata as metadata, pathlib
installed = {name.lower().replace('_', '-') for name in sys.argv[1].split(',')}
owners = metadata.packages_distributions()
class Stranger:
    def find_spec(self, name, path=None, target=None):
        top = name.partition('.')[0]
        names = {each.lower().replace('_', '-') for each in owners.get(top, ())}
        if names and not names & installed:
            raise ModuleNotFoundError(name, name=top)
sys.meta_path.insert(0, Stranger())
from inference_server import command
from inference_server.reload import command as reload_command
from inference_server.triton.model_control import ModelControl
import tritonclient.grpc
for folder in sys.argv[2:]:
    sys.path.insert(0, folder)
import preprocessing, heads
command.main(['--check', '--port', '1'])
"""
    names = re.findall(r"^([a-z-]+)==", (DEPLOY / "requirements.txt").read_text(), re.MULTILINE)
    folders = [str(small_clustering / model / "1") for model in ("preprocess", "cluster_head")]
    result = subprocess.run(
        [sys.executable, "-c", script, ",".join([*names, "classify-triton"]), *folders],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "gave no label within 5 s" in result.stderr, result.stderr


def test_every_folder_of_an_export_holds_a_file_so_that_an_object_store_keeps_it(small_clustering: Path) -> None:
    for folder in small_clustering.rglob("*"):
        assert not folder.is_dir() or any(folder.iterdir()), folder
