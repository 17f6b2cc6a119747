"""Triton model ``preprocess``: image files to pixels."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from parameters import check_threshold
from preprocessing import decode_batch


class TritonPythonModel:
    """Decodes each request's images; a request without a decodable one is refused before the network runs."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the image side S from the dimensions of ``PIXELS`` in the model's configuration."""
        outputs = json.loads(args["model_config"])["output"]
        self._size = next(int(output["dims"][0]) for output in outputs if output["name"] == "PIXELS")

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request with ``PIXELS`` uint8 [N, S, S, 3] and ``ERROR`` [N, 1], or an error of its own."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            check_threshold(request.parameters())
        except ValueError as error:
            return _refusal(str(error))
        images = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy()
        pixels, reasons = decode_batch(images.ravel().tolist(), self._size)
        if all(reasons):
            return _refusal(f"no decodable image: {json.dumps(reasons)}")
        errors = np.array(reasons, dtype=np.object_).reshape(images.shape)
        return pb_utils.InferenceResponse([pb_utils.Tensor("PIXELS", pixels), pb_utils.Tensor("ERROR", errors)])


def _refusal(message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
