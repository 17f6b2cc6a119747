"""Triton model ``preprocess``: image files to pixels."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from access_log import AccessLog, entry
from decoding import BusyError, Decoders, DecodingError
from metrics import BAD_THRESHOLD, BUSY, NO_DECODABLE_IMAGE, NOT_TEXT, Metrics
from parameters import UNUSABLE_CLIENT, client_id, read_threshold, request_id
from preprocessing import Limits

NICENESS = 10  # of 19: it still gets its share where other programs are busy


class TritonPythonModel:
    """Decodes the images of a request; one without a decodable image is refused.

    Triton runs several instances of it, in processes of their own, and gives each one request at a time.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Read the image side S and the number of decoders from the configuration, the rest from the version folder."""
        # The network's threads wait for each other, so decoding that takes one's core holds up all of them.
        os.nice(NICENESS)
        config = json.loads(args["model_config"])
        size = next(int(output["dims"][0]) for output in config["output"] if output["name"] == "PIXELS")
        self._version = int(args["model_version"])
        folder = Path(args["model_repository"]) / args["model_version"]
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self._metrics = Metrics()
        self._access_log = AccessLog(pb_utils.Logger.log_warn)
        self._decoders = Decoders(
            size,
            reduced=settings["decode"] == "reduced",
            limits=Limits(**settings["limits"]),
            processes=int(config["parameters"]["decode_threads"]["string_value"]),
            instances=sum(int(group["count"]) for group in config["instance_group"]),
            name="-".join(
                map(str, ("preprocess", os.getppid(), *_identity(Path("/proc/self/ns/pid")), *_identity(folder)))
            ),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer every request with an image's outputs, or an error of its own.

        ``PIXELS`` uint8 [N, S, S, 3], ``ERROR`` [N, 1], and for the access log ``FILE_BYTES`` int64 [N, 1].
        """
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """End the decoders, and write what the access log still has to write."""
        self._decoders.close()
        self._access_log.close()

    def _answer(self, request: Any) -> Any:
        files = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel().tolist()
        sizes = [len(file) for file in files]
        refusal = _unusable_parameters(request)
        if refusal is not None:
            return self._refuse(request, sizes, *refusal)
        try:
            pixels, reasons, seconds = self._decoders.decode_request(files)
        except (BusyError, DecodingError) as error:
            return self._refuse(request, sizes, BUSY, str(error))
        except (OSError, MemoryError):
            return self._refuse(request, sizes, BUSY, "the server has run out of descriptors or memory; try again")
        self._metrics.count_decoded(reasons, seconds)
        if all(reasons):
            return self._refuse(
                request, sizes, NO_DECODABLE_IMAGE, f"no decodable image: {json.dumps(reasons)}", reasons
            )
        return _response(pixels, reasons, sizes)

    def _refuse(
        self, request: Any, sizes: list[int], refused: str, message: str, reasons: list[str] | None = None
    ) -> Any:
        self._metrics.count_refused(refused)
        line = entry(
            client=UNUSABLE_CLIENT if refused == NOT_TEXT else client_id(request.parameters()),
            request_id=request_id(request),
            model_version=self._version,
            file_bytes=sizes,
            images=len(sizes),
            errors=reasons or [],
            sim_thres=read_threshold(request.parameters()) if refused in (NO_DECODABLE_IMAGE, BUSY) else None,
            refused=refused,
        )
        self._metrics.count_lost_lines(self._access_log.write([line]))
        code = pb_utils.TritonError.UNAVAILABLE if refused == BUSY else pb_utils.TritonError.INVALID_ARG
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def _unusable_parameters(request: Any) -> tuple[str, str] | None:
    try:
        read_threshold(request.parameters())
    except UnicodeDecodeError:
        return NOT_TEXT, "a request parameter, or the header X-Client-Id, is not UTF-8 text"
    except ValueError as error:
        return BAD_THRESHOLD, str(error)
    return None


def _identity(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_dev, found.st_ino


def _response(pixels: Any, reasons: list[str], sizes: list[int]) -> Any:
    column = np.array(reasons, dtype=np.object_).reshape(-1, 1)
    outputs = {"PIXELS": pixels, "ERROR": column, "FILE_BYTES": np.array(sizes, np.int64).reshape(-1, 1)}
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, value) for name, value in outputs.items()])
