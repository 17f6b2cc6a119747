"""The names and modules that importing the package brings."""

import subprocess
import sys

import pytest

import inference_client


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout


def test_star_import_gives_exactly_classify():
    names = run("from inference_client import *; print([n for n in dir() if not n.startswith('_')])")
    assert names == "['Classify']\n"
    assert inference_client.__all__ == ["Classify"]


def test_other_public_names_are_imported_one_by_one():
    assert (
        run("from inference_client import AsyncClassify, StreamError; print(AsyncClassify.__name__)")
        == "AsyncClassify\n"
    )


@pytest.mark.parametrize("heavy", ["torch", "onnx", "onnxruntime", "tritonclient", "aiohttp", "gevent", "numpy", "PIL"])
def test_import_brings_no_heavy_package(heavy):
    assert run(f"import sys; from inference_client import *; print({heavy!r} in sys.modules)") == "False\n"


@pytest.mark.slow
@pytest.mark.parametrize("heavy", ["torch", "onnx", "onnxruntime"])
def test_use_brings_no_training_package(heavy):
    code = f"""
import sys
from inference_client import *
Classify("localhost:1", timeout_s=1)([b"a", b"b"])
print({heavy!r} in sys.modules)
"""
    assert run(code) == "False\n"
