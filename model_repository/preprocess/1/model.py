"""Triton model ``preprocess``: image files to pixels."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from access_log import AccessLog, entry
from metrics import BAD_THRESHOLD, NO_DECODABLE_IMAGE, NOT_TEXT, Metrics
from parameters import UNUSABLE_CLIENT, client_id, read_threshold, request_id
from preprocessing import BatchDecoder, Limits

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
        self._version = int(args["model_version"])
        folder = Path(args["model_repository"]) / args["model_version"]
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self._metrics = Metrics()
        self._access_log = AccessLog(pb_utils.Logger.log_warn)
        self._decoder = BatchDecoder(
            size, reduced=settings["decode"] == "reduced", limits=Limits(**settings["limits"]), threads=threads
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request with an image's outputs, or an error of its own.

        ``PIXELS`` uint8 [N, S, S, 3], ``ERROR`` [N, 1], and for the access log ``FILE_BYTES`` int64 [N, 1].
        """
        refusals = [_unusable_parameters(request) for request in requests]
        files = [
            pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel().tolist() for request in requests
        ]
        accepted = [[] if refusal else images for refusal, images in zip(refusals, files, strict=True)]
        pixels, errors, seconds = self._decoder.decode_timed([image for images in accepted for image in images])
        self._metrics.count_decoded(errors, seconds)
        responses, lines = [], []
        end = 0
        for request, images, decoded, refusal in zip(requests, files, accepted, refusals, strict=True):
            start, end = end, end + len(decoded)
            reason, message = refusal or _unusable_images(errors[start:end])
            sizes = [len(image) for image in images]
            if reason:
                self._metrics.count_refused(reason)
                lines.append(self._refused(request, reason, sizes, errors[start:end]))
                responses.append(_refusal(message))
            else:
                responses.append(_response(pixels[start:end], errors[start:end], sizes))
        self._metrics.count_lost_lines(self._access_log.write(lines))
        return responses

    def finalize(self) -> None:
        """Write what the access log still has to write."""
        self._access_log.close()

    def _refused(self, request: Any, reason: str, sizes: list[int], errors: list[str]) -> bytes:
        readable = reason != NOT_TEXT
        return entry(
            client=client_id(request.parameters()) if readable else UNUSABLE_CLIENT,
            request_id=request_id(request),
            model_version=self._version,
            file_bytes=sizes,
            images=len(sizes),
            errors=errors,
            sim_thres=read_threshold(request.parameters()) if reason == NO_DECODABLE_IMAGE else None,
            refused=reason,
        )


def _unusable_parameters(request: Any) -> tuple[str, str] | None:
    try:
        read_threshold(request.parameters())
    except UnicodeDecodeError:
        return NOT_TEXT, "a request parameter, or the header X-Client-Id, is not UTF-8 text"
    except ValueError as error:
        return BAD_THRESHOLD, str(error)
    return None


def _unusable_images(errors: list[str]) -> tuple[str, str]:
    return (NO_DECODABLE_IMAGE, f"no decodable image: {json.dumps(errors)}") if all(errors) else ("", "")


def _response(pixels: Any, errors: list[str], sizes: list[int]) -> Any:
    column = np.array(errors, dtype=np.object_).reshape(-1, 1)
    outputs = {"PIXELS": pixels, "ERROR": column, "FILE_BYTES": np.array(sizes, np.int64).reshape(-1, 1)}
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in outputs.items()])


def _refusal(message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
