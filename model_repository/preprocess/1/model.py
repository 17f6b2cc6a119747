"""Triton model ``preprocess``: image files to pixels."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils
from parameters import KnownClients, check_threshold, client_id
from preprocessing import BatchDecoder, Limits

if TYPE_CHECKING:
    from collections.abc import Iterable

NICENESS = 10  # of 19: it still gets its share where other programs are busy


class TritonPythonModel:
    """Decodes the images of all requests of a batch together; a request without a decodable one is refused."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the image side S and the number of threads from the configuration, the rest from the version folder."""
        # The network's threads wait for each other, so decoding that takes one's core holds up all of them.
        os.nice(NICENESS)
        config = json.loads(args["model_config"])
        size = next(int(output["dims"][0]) for output in config["output"] if output["name"] == "PIXELS")
        threads = int(config["parameters"]["decode_threads"]["string_value"])
        folder = Path(args["model_repository"]) / args["model_version"]
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self._counters = ClientCounters()
        self._decoder = BatchDecoder(
            size, reduced=settings["decode"] == "reduced", limits=Limits(**settings["limits"]), threads=threads
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request with ``PIXELS`` uint8 [N, S, S, 3] and ``ERROR`` [N, 1], or an error of its own."""
        refusals = [_unusable_threshold(request) for request in requests]
        images = [
            pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel().tolist() if refusal is None else []
            for request, refusal in zip(requests, refusals, strict=True)
        ]
        pixels, reasons = self._decoder.decode([file for files in images for file in files])
        self._counters.count(
            (request.parameters(), len(files)) for request, files in zip(requests, images, strict=True) if files
        )
        ends = np.cumsum([len(files) for files in images]).tolist()
        return [
            _response(pixels[end - len(files) : end], reasons[end - len(files) : end]) if refusal is None else refusal
            for refusal, files, end in zip(refusals, images, ends, strict=True)
        ]


class ClientCounters:
    """The metric that says how many images each client has sent."""

    def __init__(self) -> None:
        self._family = pb_utils.MetricFamily(
            name="classify_images", description="Images received, by client", kind=pb_utils.MetricFamily.COUNTER
        )
        self._clients = KnownClients()
        self._metrics: dict[str, Any] = {}

    def count(self, batch: Iterable[tuple[str, int]]) -> None:
        """Count the images of a batch: each request's parameters, and its number of images."""
        images: Counter[str] = Counter()
        for parameters, number in batch:
            images[self._clients.label(client_id(parameters))] += number
        for client, number in images.items():
            if client not in self._metrics:
                self._metrics[client] = self._family.Metric(labels={"client": client})
            self._metrics[client].increment(number)


def _unusable_threshold(request: Any) -> Any:
    try:
        check_threshold(request.parameters())
    except UnicodeDecodeError:
        return _refusal("a request parameter, or the header X-Client-Id, is not UTF-8 text")
    except ValueError as error:
        return _refusal(str(error))
    return None


def _response(pixels: Any, reasons: list[str]) -> Any:
    if all(reasons):
        return _refusal(f"no decodable image: {json.dumps(reasons)}")
    errors = np.array(reasons, dtype=np.object_).reshape(-1, 1)
    return pb_utils.InferenceResponse([pb_utils.Tensor("PIXELS", pixels), pb_utils.Tensor("ERROR", errors)])


def _refusal(message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
