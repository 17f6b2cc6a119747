"""What the models do beside their answers: recording them later, and keeping tensors that repeat."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from inference_export.repository.versions import exported_version
from inference_export.template import load_served_module, template_directory

background = load_served_module("preprocess", "background")

# Stands in for Triton's own module: counts the tensors that are alive.
PROCESS = """
import sys, types
sys.dont_write_bytecode = True
sys.path[:0] = {folders!r}
import numpy as np

class Tensor:
    alive = 0

    def __init__(self, name, values):
        self.name, self.values = name, values
        Tensor.alive += 1

    def __del__(self):
        Tensor.alive -= 1

    def as_numpy(self):
        return self.values

class Metric:
    COUNTER, HISTOGRAM = "counter", "histogram"

    def __init__(self, *_, **__): ...
    def Metric(self, **_): return self
    def increment(self, _): ...
    def observe(self, _): ...

class Request:
    def __init__(self, rows):
        self.tensors = {{
            "EMBEDDING": np.ones((rows, 512), np.float32),
            "PROBABILITIES": np.full((rows, 2), 0.5, np.float32),
            "ERROR": np.full((rows, 1), b"", np.object_),
        }}

    def parameters(self): return "{{}}"
    def request_id(self): return ""
    def requested_output_names(self): return ["LABEL", "ERROR", "CLASSES", "VERSION", "THRESHOLD"]

sys.modules["triton_python_backend_utils"] = types.SimpleNamespace(
    Tensor=Tensor, MetricFamily=Metric, Logger=types.SimpleNamespace(log_warn=print), InferenceResponse=list,
    get_input_tensor_by_name=lambda request, name: Tensor(name, request.tensors[name]),
)
from model import TritonPythonModel
model = TritonPythonModel()
model.initialize({{"model_version": {version!r}, "model_repository": {folder!r}}})
for rows in (1, 2, 3, 2, 1):
    (response,) = model.execute([Request(rows)])
    assert [len(tensor.values) for tensor in response] == [rows] * 5
    again, _ = model.execute([Request(rows)])[0], response
    same = {{tensor.name for tensor, other in zip(response, again) if tensor is other}}
    assert same == {{"ERROR", "CLASSES", "VERSION", "THRESHOLD"}}, same
del response, again, _
print(Tensor.alive, file=sys.stderr)
model.finalize()
print(Tensor.alive, file=sys.stderr)
"""


def test_tensors_that_repeat_are_made_once_and_none_outlives_its_model(small_clustering: Path) -> None:
    """A process that ends with one of Triton's tensors crashes."""
    version = exported_version(small_clustering)
    assert version is not None
    program = PROCESS.format(
        folders=[str(template_directory() / model / "1") for model in ("cluster_head", "preprocess")],
        version=version.folder("cluster_head"),
        folder=str(small_clustering / "cluster_head"),
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == ["12", "0"]  # four for each number of rows


def test_items_are_handled_in_order_together_and_never_in_the_thread_that_adds_them() -> None:
    handled: list[list[int]] = []
    threads = set()

    def handle(items: list[int]) -> None:
        handled.append(items)
        threads.add(threading.current_thread())

    worker = background.Background(handle, pytest.fail, name="test")
    for number in range(100):
        worker.add(number)
    worker.close()
    assert [number for items in handled for number in items] == list(range(100))
    assert len(handled) < 100
    assert threads.isdisjoint({threading.current_thread()})


def test_items_are_handled_again_after_a_long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "GATHER_S", 0.01)
    handled: list[int] = []
    worker = background.Background(handled.extend, pytest.fail, name="test")
    for number in range(3):
        worker.add(number)
        deadline_s = time.monotonic() + 10
        while number not in handled:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        time.sleep(2 * background.ROUNDS_UNTIL_SLEEP * background.GATHER_S)
    worker.close()
    assert handled == [0, 1, 2]


def test_failure_costs_its_items_only_and_is_said_once() -> None:
    handled: list[Any] = []
    said: list[str] = []

    def handle(items: list[str]) -> None:
        if "bad" in items:
            raise ValueError("no")
        handled.extend(items)

    worker = background.Background(handle, said.append, name="recording")
    for item in ("bad", "bad", "good"):
        worker.add(item)
        time.sleep(3 * background.GATHER_S)
    worker.close()
    assert handled == ["good"]
    assert said == ["recording: ValueError: no"]


BLAS = """
import ctypes, sys
sys.dont_write_bytecode = True
sys.path.insert(0, {folder!r})
import numpy
import blas_threads

def count():
    (path,) = {{line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if "openblas" in line}}
    library = ctypes.CDLL(path)
    names = ("openblas_get_num_threads", "openblas_get_num_threads64_", "scipy_openblas_get_num_threads64_")
    return next(getattr(library, name)() for name in names if hasattr(library, name))

blas_threads.set_blas_threads(3)
before = count()
blas_threads.set_blas_threads(1)
print(before, count())
"""


def test_products_are_made_in_one_thread() -> None:
    program = BLAS.format(folder=str(template_directory() / "cluster_head" / "1"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["3", "1"], done.stderr
