"""Triton model ``cluster_head``: embeddings and probabilities to labels, and the evidence for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils
from blas_threads import set_blas_threads
from constants import release_tensors, repeated_tensor
from heads import load_head
from questions import CLASS_AT, Answered, Question, read_question
from reasons import NOT_FINITE, Reason
from recording import Recorder

if TYPE_CHECKING:
    import numpy.typing as npt

NO_OUTPUT = Reason(NOT_FINITE, "not classified: the network's output for this image is not finite")


class TritonPythonModel:
    """Answers the rows of all requests of a batch together; a row with an error gets no answer."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version's settings and, in clustering mode, its base set."""
        set_blas_threads(1)
        self._version = int(args["model_version"])
        self._head = load_head(Path(args["model_repository"]) / args["model_version"])
        self._recorder = Recorder(self._head.mode, self._version)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with its outputs, or with an error of its own.

        An exception here would fail all requests of the batch.
        """
        questions = [read_question(request) for request in requests]
        accepted = [question for question in questions if question.problem is None]
        answered = self._answer(accepted) if accepted else []
        self._recorder.record(answered, [question for question in questions if question.problem is not None])
        responses = map(self._response, answered)
        return [
            next(responses) if question.problem is None else _refusal(question.problem.message)
            for question in questions
        ]

    def finalize(self) -> None:
        """Write the access log's last lines."""
        self._recorder.close()
        release_tensors()

    def _answer(self, questions: list[Question]) -> list[Answered]:
        """Answer all rows of all questions together."""
        in_force = [self._head.threshold_in_force(question.parameters.threshold) for question in questions]
        sizes = [len(question.embeddings) for question in questions]
        embeddings = _join([question.embeddings for question in questions])
        probabilities = _join([question.probabilities for question in questions])
        thresholds = np.array(in_force, np.float32).repeat(sizes)
        reasons = [reason for question in questions for reason in question.reasons]
        if not (np.isfinite(embeddings).all() and np.isfinite(probabilities).all()):
            finite = np.isfinite(embeddings).all(axis=1) & np.isfinite(probabilities).all(axis=1)
            reasons = [
                reason if reason or is_finite else NO_OUTPUT for reason, is_finite in zip(reasons, finite, strict=True)
            ]
        bad = [row for row, reason in enumerate(reasons) if reason]
        if bad:
            embeddings, probabilities = _without(bad, embeddings), _without(bad, probabilities)
        outputs = self._head.answer(embeddings, probabilities, thresholds)
        if bad:
            for value in outputs.values():
                value[bad] = "" if value.dtype == object else 0
        outputs["EMBEDDING"] = embeddings
        answered = []
        end = 0
        for question, size, threshold in zip(questions, sizes, in_force, strict=True):
            start, end = end, end + size
            own = {name: value[start:end] for name, value in outputs.items()} if len(questions) > 1 else outputs
            if question.is_direct:
                classes = self._head.classes_at(own["EMBEDDING"], probabilities[start:end], question.thresholds)
                classes[[row - start for row in bad if start <= row < end]] = -1
                own[CLASS_AT] = classes
            answered.append(Answered(question, own, reasons[start:end], threshold))
        return answered

    def _response(self, answered: Answered) -> Any:
        return pb_utils.InferenceResponse([self._tensor(name, answered) for name in answered.question.output_names])

    def _tensor(self, name: str, answered: Answered) -> Any:
        rows = len(answered.reasons)
        if name in answered.outputs:
            return pb_utils.Tensor(name, answered.outputs[name])
        if name in self._head.constants:
            return repeated_tensor(name, *self._head.constants[name], rows)
        if name == "VERSION":
            return repeated_tensor(name, (self._version,), np.int64, rows)
        if name == "THRESHOLD":
            return repeated_tensor(name, (answered.threshold,), np.float32, rows)
        if any(answered.reasons):
            return pb_utils.Tensor(name, np.array(answered.reasons, np.object_).reshape(rows, 1))
        return repeated_tensor(name, ("",), np.object_, rows)


def _join(arrays: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _without(rows: list[int], values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    values = values.copy()
    values[rows] = 0
    return values


def _refusal(message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
