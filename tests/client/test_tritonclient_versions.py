"""The wheel with only its requirements: the lowest tritonclient and aiohttp that it admits, and the newest."""

import json
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from stand_in import unused_port

from inference_client import Classify

ROOT = Path(__file__).resolve().parents[2]
INSTALL_TIMEOUT_S = 280
RUN_TIMEOUT_S = 120
NEVER_IN_A_CLIENT = {"torch", "onnx", "onnxruntime", "onnxruntime-gpu", "nvidia-pytriton"}

SCRIPT = """
import json, sys
from inference_client import *
url, refusing_url, *files = sys.argv[1:]
with Classify(url, details=True) as target_server:
    answers = {
        "all classified": target_server(files),
        "one undecodable": target_server([files[0], b"not an image"]),
        "none decodable": target_server(b"not an image"),
        "refused": target_server(files[0], sim_thres=7),
        "long list": target_server(files * 20),
    }
with Classify(refusing_url) as nobody:
    answers["unreachable"] = nobody(files)
json.dump(answers, sys.stdout)
"""


def run(*command, timeout_s):
    ended = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout_s,
        check=False,
        cwd=Path(sys.prefix),  # a folder from which the checkout can't be imported
    )
    assert ended.returncode == 0, f"{command}\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}"
    return ended


def lowest(package):
    """Return the lowest version of a package that pyproject.toml admits."""
    requirements = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    (requirement,) = [text for text in requirements if text.startswith(package)]
    return re.search(r">=([\d.]+)", requirement).group(1)


@pytest.fixture(scope="module", params=["lowest", "newest"])
def environment(request, wheel, tmp_path_factory):
    """Return the Python of an environment that holds only the wheel and its requirements."""
    folder = tmp_path_factory.mktemp(f"{request.param}_tritonclient")
    venv.create(folder, with_pip=False)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pins = [f"tritonclient[http]=={lowest('tritonclient')}.*", f"aiohttp=={lowest('aiohttp')}"]
    wanted = pins if request.param == "lowest" else []
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile")
    run(*pip, wheel, *wanted, timeout_s=INSTALL_TIMEOUT_S)
    return python


def distributions(python):
    pip = (sys.executable, "-m", "pip", "--python", python)
    listed = run(*pip, "list", "--format", "json", timeout_s=RUN_TIMEOUT_S).stdout
    return {entry["name"].lower(): entry["version"] for entry in json.loads(listed)}


@pytest.mark.parametrize("package", ["tritonclient", "aiohttp"])
def test_both_ends_of_the_admitted_range_are_installed(environment, package):
    version, bound = distributions(environment)[package], lowest(package)
    if "lowest" in str(environment):
        assert version == bound or version.startswith(f"{bound}.")
    else:
        assert [int(part) for part in version.split(".")[:2]] > [int(part) for part in bound.split(".")[:2]]


def test_client_brings_no_training_or_serving_package(environment):
    assert NEVER_IN_A_CLIENT.isdisjoint(distributions(environment))


def test_star_import_gives_exactly_classify(environment):
    names = "from inference_client import *; print([name for name in dir() if not name.startswith('_')])"
    assert run(environment, "-I", "-c", names, timeout_s=RUN_TIMEOUT_S).stdout == "['Classify']\n"


def test_command_shows_its_help(environment):
    command = environment.with_name(f"classify{environment.suffix}")
    assert "IMG [IMG ...]" in run(command, "-h", timeout_s=RUN_TIMEOUT_S).stdout


def test_answers_are_those_of_this_environment(environment, clustering_server, query_images):
    files = list(map(str, query_images[:5]))
    refusing_url = f"http://127.0.0.1:{unused_port()}"
    ended = run(environment, "-I", "-c", SCRIPT, clustering_server.url, refusing_url, *files, timeout_s=RUN_TIMEOUT_S)
    answers = json.loads(ended.stdout)
    assert ended.stderr == ""
    assert {case: status_code for case, (_, status_code) in answers.items()} == {
        "all classified": 200,
        "one undecodable": 207,
        "none decodable": 400,
        "refused": 400,
        "long list": 200,
        "unreachable": 503,
    }
    with Classify(clustering_server.url, details=True) as target_server:
        expected, _ = target_server(files)
    for entries in (answers["all classified"][0], answers["long list"][0][:5], answers["long list"][0][-5:]):
        for entry, same in zip(entries, expected, strict=True):
            assert entry["Label"] == same["Label"]
            assert entry["Scores"] == pytest.approx(same["Scores"], abs=1e-4)
            assert entry["Matches"] == same["Matches"]
            assert entry["Neighbors"][0]["Image"] == same["Neighbors"][0]["Image"]
    assert "sim_thres" in answers["refused"][0]["error"]
    assert refusing_url in answers["unreachable"][0]["error"]
