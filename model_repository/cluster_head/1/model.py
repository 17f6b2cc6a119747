"""Triton model ``cluster_head``: embeddings and probabilities to labels, and the evidence for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from heads import load_head
from questions import CLASS_AT, Answered, Question, read_question
from reasons import NOT_FINITE, Reason
from recording import Recorder

NO_OUTPUT = Reason(NOT_FINITE, "not classified: the network's output for this image is not finite")


class TritonPythonModel:
    """Answers the rows of all requests of a batch together; a row with an error gets no answer."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version's settings and, in clustering mode, its base set."""
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
        responses = map(_response, answered)
        return [
            next(responses) if question.problem is None else _refusal(question.problem.message)
            for question in questions
        ]

    def finalize(self) -> None:
        """Write the access log's last lines."""
        self._recorder.close()

    def _answer(self, questions: list[Question]) -> list[Answered]:
        """Answer all rows of all questions together."""
        sizes = [len(question.embeddings) for question in questions]
        in_force = [self._head.threshold_in_force(question.parameters.threshold) for question in questions]
        embeddings = np.concatenate([question.embeddings for question in questions])
        probabilities = np.concatenate([question.probabilities for question in questions])
        thresholds = np.repeat(np.array(in_force, np.float32), sizes)
        reasons = [reason for question in questions for reason in question.reasons]
        finite = np.isfinite(embeddings).all(axis=1) & np.isfinite(probabilities).all(axis=1)
        reasons = [
            reason if reason or is_finite else NO_OUTPUT for reason, is_finite in zip(reasons, finite, strict=True)
        ]
        bad = np.array([bool(reason) for reason in reasons])
        embeddings = np.where(bad[:, None], np.float32(0), embeddings)
        probabilities = np.where(bad[:, None], np.float32(0), probabilities)
        outputs = {
            name.upper(): value
            for name, value in self._head.answer(embeddings, probabilities, thresholds)._asdict().items()
        }
        for name, value in outputs.items():
            if name != "CLASSES":
                value[bad] = "" if value.dtype == object else 0
        outputs |= {
            "ERROR": np.array(reasons, np.object_)[:, None],
            "EMBEDDING": embeddings,
            "VERSION": np.full((len(bad), 1), self._version, np.int64),
            "THRESHOLD": thresholds[:, None],
        }
        answered = []
        for question, end, threshold in zip(questions, np.cumsum(sizes), in_force, strict=True):
            rows = slice(end - len(question.embeddings), end)
            own = {name: value[rows] for name, value in outputs.items()}
            if question.is_direct:
                classes = self._head.classes_at(embeddings[rows], probabilities[rows], question.thresholds)
                own[CLASS_AT] = np.where(bad[rows, None], np.int32(-1), classes)
            answered.append(Answered(question, own, reasons[rows], threshold))
        return answered


def _response(answered: Answered) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, rows) for name, rows in answered.outputs.items()])


def _refusal(message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
