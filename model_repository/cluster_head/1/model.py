"""Triton model ``cluster_head``: embeddings and probabilities to labels, and the evidence for them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from heads import load_head
from parameters import read_threshold
from recording import Recorder

NOT_FINITE = "not classified: the network's output for this image is not finite"


class TritonPythonModel:
    """Answers the rows of all requests of a batch together; a row with an error stays without an answer."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the version's settings and, in clustering mode, its base set."""
        self._head = load_head(Path(args["model_repository"]) / args["model_version"])
        self._recorder = Recorder(self._head.mode, int(args["model_version"]))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request with all outputs of the ensemble, or an error of its own."""
        thresholds = [_threshold(request) for request in requests]
        accepted = [request for request, threshold in zip(requests, thresholds, strict=True) if threshold is not None]
        answers = self._answers(accepted, [t for t in thresholds if t is not None]) if accepted else []
        refused = [request for request, threshold in zip(requests, thresholds, strict=True) if threshold is None]
        self._recorder.record(list(zip(accepted, answers, strict=True)), refused)
        responses = map(_response, answers)
        return [_refusal() if threshold is None else next(responses) for threshold in thresholds]

    def finalize(self) -> None:
        """Write what the access log still has to write."""
        self._recorder.close()

    def _answers(self, requests: list[Any], thresholds: list[float]) -> list[dict[str, Any]]:
        """Answer all rows together; each request's outputs, by their names."""
        embeddings, probabilities, errors = (
            [pb_utils.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            for name in ("EMBEDDING", "PROBABILITIES", "ERROR")
        )
        sizes = [len(rows) for rows in embeddings]
        outputs = self._answer(
            np.concatenate(embeddings),
            np.concatenate(probabilities),
            np.concatenate(errors),
            np.repeat(np.array(thresholds, np.float32), sizes),
        )
        ends = np.cumsum(sizes)
        return [
            {name: rows[end - size : end] for name, rows in outputs.items()}
            for end, size in zip(ends, sizes, strict=True)
        ]

    def _answer(self, embeddings: Any, probabilities: Any, errors: Any, thresholds: Any) -> dict[str, Any]:
        finite = np.isfinite(embeddings).all(axis=1) & np.isfinite(probabilities).all(axis=1)
        errors = np.where(finite[:, None] | (errors != b""), errors, NOT_FINITE.encode())
        bad = (errors != b"").ravel()
        embeddings = np.where(bad[:, None], np.float32(0), embeddings)
        probabilities = np.where(bad[:, None], np.float32(0), probabilities)
        answer = self._head.answer(embeddings, probabilities, thresholds)
        outputs = {name.upper(): value for name, value in answer._asdict().items()}
        for name, value in outputs.items():
            if name != "CLASSES":
                value[bad] = "" if value.dtype == object else 0
        return {**outputs, "ERROR": errors, "EMBEDDING": embeddings}


def _threshold(request: Any) -> float | None:
    """Read a request's threshold: NaN where it names none, None where it is unusable.

    The ensemble refuses an unusable one in ``preprocess`` already, with a full explanation. Nothing may escape from
    here: it would fail the other requests of the batch as well.
    """
    try:
        threshold = read_threshold(request.parameters())
    except ValueError:  # UnicodeDecodeError is one
        return None
    return math.nan if threshold is None else threshold


def _response(answer: dict[str, Any]) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, rows) for name, rows in answer.items()])


def _refusal() -> Any:
    message = "sim_thres must be a number from -1 to 1, and every parameter UTF-8 text"
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
