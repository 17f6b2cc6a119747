"""The steps of each model, timed in a copy of a repository and of the backends."""

from __future__ import annotations

import json
import shutil
from array import array
from collections import Counter
from pathlib import Path

from bench.overhead.stopwatch import CELLS_PER_STEP, SETTINGS_FILE
from bench.serving import served_version
from inference_server.triton.backend_directory import assemble_backends
from inference_server.triton.pip_package import pytriton_folder

_TRITON = "triton_python_backend_utils"
_MODEL = "served_model"
REST = "rest"
BESIDE = "beside"
_TENSORS = [f"{_TRITON}:Tensor", f"{_TRITON}:InferenceResponse"]
# Functions of each step. A function's time counts once, for the innermost step; ``REST`` is what no other step has.
STEPS = {
    "preprocess": {
        REST: [f"{_MODEL}:TritonPythonModel.execute"],
        "read inputs": [f"{_TRITON}:get_input_tensor_by_name"],
        "parameters": ["parameters:read_parameters"],
        "decode": ["decoding:Decoders.decode_request"],
        "tensors": _TENSORS,
        "metrics": [
            "metrics:Metrics.count_decoded", "metrics:Metrics.count_refused", "metrics:Metrics.count_lost_lines",
        ],
        "log": ["background:Background.add", "access_log:entry", "access_log:AccessLog.write"],
    },
    "classifier": {
        REST: [f"{_MODEL}:TritonPythonModel.execute"],
        "read inputs": [f"{_TRITON}:get_input_tensor_by_name"],
        "network": ["onnxruntime:InferenceSession.run"],
        "tensors": _TENSORS,
    },
    "cluster_head": {
        REST: [f"{_MODEL}:TritonPythonModel.execute"],
        "read inputs": [f"{_TRITON}:get_input_tensor_by_name", "questions:read_question"],
        "parameters": ["parameters:read_parameters"],
        "compare": ["heads:ClusteringHead.answer", "heads:ClassificationHead.answer"],
        "tensors": _TENSORS,
        "metrics": [
            "metrics:Metrics.count_answers", "metrics:Metrics.count_not_finite", "metrics:Metrics.count_lost_lines",
        ],
        "log": ["background:Background.add", "access_log:entry", "access_log:AccessLog.write"],
    },
}  # fmt: skip
# Triton adds its classes to its module after it has imported the model.
_TIMED_MODEL = f"""import stopwatch

import {_MODEL}


class TritonPythonModel({_MODEL}.TritonPythonModel):
    def initialize(self, args):
        self._repetitions = stopwatch.start()
        super().initialize(args)

    def execute(self, requests):
        for _ in range(self._repetitions - 1):
            super().execute(requests)
        return super().execute(requests)
"""


class TimedRepository:
    """A copy of a repository, and of the backends, whose models time their steps.

    Args:
        repository: The exported repository.
        folder: The folder for the copy and the totals.
        repetitions: How often each batch is answered. A process that wakes for a single answer finds the processor's
            caches cold, and takes several times as long; repetitions show the code's own time.

    Attributes:
        repository: The copy; serve it with ``arguments``.
    """

    def __init__(self, repository: Path, folder: Path, *, repetitions: int = 1) -> None:
        self._repetitions = repetitions
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        self.repository = folder / "repository"
        shutil.copytree(repository, self.repository)
        backends = folder / "backends"
        shutil.copytree(assemble_backends(pytriton_folder() / "tritonserver"), backends)
        self.arguments = ["--backend-directory", str(backends)]
        version = served_version(repository)
        for model in STEPS:
            in_backend = model == "classifier"
            self._lay(
                backends / "onnxruntime" if in_backend else self.repository / model / version.folder(model), model
            )

    def _lay(self, place: Path, model: str) -> None:
        (place / "model.py").rename(place / f"{_MODEL}.py")
        (place / "model.py").write_text(_TIMED_MODEL)
        shutil.copy(Path(__file__).with_name("stopwatch.py"), place)
        totals = self._folder / "totals" / model
        totals.mkdir(parents=True)
        settings = {"steps": STEPS[model], "folder": str(totals.resolve()), "repetitions": self._repetitions}
        (place / SETTINGS_FILE).write_text(json.dumps(settings))

    def read_us(self, model: str) -> Counter[str]:
        """Return the microseconds that all processes of a model have spent in each step so far, for one repetition.

        ``BESIDE`` is the processor time of the steps that other threads did, beside the answers.
        """
        total: Counter[str] = Counter()
        for file in (self._folder / "totals" / model).iterdir():
            cells = array("q", file.read_bytes())
            for number, step in enumerate(STEPS[model]):
                before, beside = cells[CELLS_PER_STEP * number :][:CELLS_PER_STEP]
                total[step] += before / 1000 / self._repetitions  # type: ignore[assignment]
                total[BESIDE] += beside / 1000 / self._repetitions  # type: ignore[assignment]
        return total
