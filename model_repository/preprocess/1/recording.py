"""Records each request in the metrics and, if it is refused, in the access log, after its answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import triton_python_backend_utils as pb_utils
from access_log import AccessLog, entry
from background import Background
from metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from parameters import Parameters


class Decoded(NamedTuple):
    """What is kept of a request whose images went through decoders; ``Metrics.count_decoded`` explains it."""

    undecodable: Sequence[str]
    seconds: Sequence[float]
    file_bytes: Sequence[int]
    notes: Sequence[str]


class Refused(NamedTuple):
    """What is kept of a refused request.

    Attributes:
        time_s: Time of the answer, in seconds since 1970.
        parameters: The request's parameters.
        images: Number of images.
        refused: Code of the reason for the refusal.
        undecodable: Code of the reason for each image that can't be decoded.
    """

    time_s: float
    parameters: Parameters
    images: int
    refused: str
    undecodable: Sequence[str]


class Recorder:
    """Records requests in a thread of its own.

    Args:
        version: The model's version.
    """

    def __init__(self, version: int) -> None:
        self._version = version
        self._metrics = Metrics()
        self._access_log = AccessLog(pb_utils.Logger.log_warn)
        self._background = Background(self._record, pb_utils.Logger.log_warn, name="recording")

    def decoded(self, decoded: Decoded) -> None:
        """Have the images of a request counted."""
        self._background.add(decoded)

    def refused(self, parameters: Parameters, images: int, refused: str, undecodable: Sequence[str]) -> None:
        """Have a refused request counted and logged."""
        self._background.add(Refused(time.time(), parameters, images, refused, undecodable))

    def close(self) -> None:
        """Record what waits, and write the access log's last lines."""
        self._background.close()
        self._access_log.close()

    def _record(self, records: list[Decoded | Refused]) -> None:
        lines = [
            entry(
                record.parameters,
                time_s=record.time_s,
                model_version=self._version,
                images=record.images,
                reasons=record.undecodable,
                refused=record.refused,
            )
            for record in records
            if isinstance(record, Refused)
        ]
        lost = self._access_log.write(lines)
        for record in records:
            if isinstance(record, Refused):
                self._metrics.count_refused(record.refused)
            else:
                self._metrics.count_decoded(*record)
        self._metrics.count_lost_lines(lost)
