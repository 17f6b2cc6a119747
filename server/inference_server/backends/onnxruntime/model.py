"""Triton backend ``onnxruntime`` in Python, for a tritonserver without the native one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from session import open_session


class TritonPythonModel:
    """Runs all requests of a batch as one: concatenates their inputs, splits the outputs again."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the version's session, or refuse a configuration that can't be followed."""
        config = json.loads(args["model_config"])
        self._session = open_session(
            config,
            Path(args["model_repository"]) / args["model_version"],
            kind=args["model_instance_kind"],
            device_id=int(args["model_instance_device_id"]),
        )
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        self._batched = config["max_batch_size"] > 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with its own rows of the network's outputs."""
        groups = [requests] if self._batched else [[request] for request in requests]
        return [response for group in groups for response in self._run(group)]

    def _run(self, requests: list[Any]) -> list[Any]:
        inputs = {name: [_array(request, name) for request in requests] for name in self._inputs}
        try:
            outputs = self._session.run(
                self._outputs,
                {name: rows[0] if len(rows) == 1 else np.concatenate(rows) for name, rows in inputs.items()},
            )
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            failure = pb_utils.TritonError(f"ONNX Runtime failed: {error}")
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        if len(requests) == 1:
            return [_response(self._outputs, outputs)]
        sizes = [len(rows) for rows in inputs[self._inputs[0]]]
        ends = np.cumsum(sizes)
        return [
            _response(self._outputs, [rows[end - size : end] for rows in outputs])
            for end, size in zip(ends, sizes, strict=True)
        ]


def _array(request: Any, name: str) -> Any:
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()


def _response(names: list[str], arrays: list[Any]) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in zip(names, arrays, strict=True)])
