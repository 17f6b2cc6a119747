"""Triton model ``preprocess``: image files to pixels."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import triton_python_backend_utils as pb_utils
from constants import release_tensors, repeated_tensor
from decoding import BusyError, Decoders
from forking import DecodingError
from geometry import Geometry
from metrics import BUSY, NO_DECODABLE_IMAGE
from parameters import Invalid, Parameters, read_parameters
from preprocessing import Limits
from recording import Decoded, Recorder

if TYPE_CHECKING:
    from collections.abc import Sequence

NICENESS = 10  # of 19: beside other busy programs, decoding still gets a share of the cores


class TritonPythonModel:
    """Decodes the images of a request; refuses a request without a decodable image.

    Triton runs several instances, each in a process of its own, and gives each one request at a time.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Read the image side S and the number of decoders from the configuration, the rest from the version folder."""
        # The network's threads wait for each other, so a decoder that displaces one thread holds up all.
        os.nice(NICENESS)
        config = json.loads(args["model_config"])
        size = next(int(output["dims"][0]) for output in config["output"] if output["name"] == "PIXELS")
        self._version = int(args["model_version"])
        folder = Path(args["model_repository"]) / args["model_version"]
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        self._recorder = Recorder(self._version)
        # All instances of this version under this tritonserver compute the same name, and no others do.
        identities = [(file.stat().st_dev, file.stat().st_ino) for file in (Path("/proc/self/ns/pid"), folder)]
        self._decoders = Decoders(
            size,
            reduced=settings["decode"] == "reduced",
            geometry=Geometry(**settings["geometry"]),
            limits=Limits(**settings["limits"]),
            processes=int(config["parameters"]["decode_threads"]["string_value"]),
            instances=sum(int(group["count"]) for group in config["instance_group"]),
            name="-".join(map(str, ("preprocess", os.getppid(), *identities[0], *identities[1]))),
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request with ``PIXELS``, uint8 [N, S, S, 3], ``ERROR`` and ``NOTE`` [N, 1], or an error."""
        return [self._answer(request) for request in requests]

    def finalize(self) -> None:
        """End the decoders and write the access log's last lines."""
        self._decoders.close()
        self._recorder.close()
        release_tensors()

    def _answer(self, request: Any) -> Any:
        parameters = read_parameters(request)
        files = pb_utils.get_input_tensor_by_name(request, "IMAGE").as_numpy().ravel().tolist()
        if isinstance(parameters.threshold, Invalid):
            return self._refuse(parameters, len(files), parameters.threshold.code, parameters.threshold.message)
        try:
            pixels, reasons, notes, seconds = self._decoders.decode_request(files)
        except (BusyError, DecodingError) as error:
            return self._refuse(parameters, len(files), BUSY, str(error))
        except (OSError, MemoryError):
            message = "the server has run out of descriptors or memory; try again"
            return self._refuse(parameters, len(files), BUSY, message)
        is_bad = any(reasons)
        codes = [reason.code for reason in reasons if reason] if is_bad else []
        self._recorder.decoded(Decoded(codes, seconds, [len(file) for file in files], notes))
        if is_bad and all(reasons):
            message = f"no decodable image: {json.dumps(reasons)}"
            return self._refuse(parameters, len(files), NO_DECODABLE_IMAGE, message, codes)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("PIXELS", pixels),
                _column("ERROR", [reason.pack() for reason in reasons] if is_bad else [""] * len(files)),
                _column("NOTE", notes),
            ]
        )

    def _refuse(
        self, parameters: Parameters, images: int, refused: str, message: str, reasons: Sequence[str] = ()
    ) -> Any:
        self._recorder.refused(parameters, images, refused, reasons)
        code = pb_utils.TritonError.UNAVAILABLE if refused == BUSY else pb_utils.TritonError.INVALID_ARG
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def _column(name: str, texts: Sequence[str]) -> Any:
    if any(texts):
        return pb_utils.Tensor(name, np.array(texts, np.object_).reshape(-1, 1))
    return repeated_tensor(name, ("",), np.object_, len(texts))
