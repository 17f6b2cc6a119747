"""Builds requests to ``ensemble`` in KServe's binary form, which carries files as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

INFER_PATH = "/v2/models/ensemble/infer"
OUTPUTS = ("ERROR", "LABEL", "PROBABILITY")


def image_tensors(files: Sequence[bytes]) -> tuple[list[InferInput], list[InferRequestedOutput]]:
    """Make the inputs and requested outputs of one request for N files, as tritonclient takes them."""
    image = InferInput("IMAGE", [len(files), 1], "BYTES")
    image.set_data_from_numpy(np.array([[file] for file in files], dtype=np.object_))
    return [image], [InferRequestedOutput(name) for name in OUTPUTS]


def binary_request(files: Sequence[bytes]) -> tuple[bytes, Mapping[str, str]]:
    """Encode one request for N files.

    Returns:
        The request's body and headers.
    """
    inputs, outputs = image_tensors(files)
    body, json_bytes = InferenceServerClient.generate_request_body(inputs, outputs=outputs)
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(json_bytes)}
    return body, headers
