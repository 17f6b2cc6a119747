"""What metrics and the access log are told of each request."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils
from access_log import AccessLog, entry, reason_name
from metrics import Metrics
from parameters import UNUSABLE_CLIENT, client_id, read_threshold, request_id

BAD_PARAMETERS = "parameters"
NOT_FINITE = "not_finite"


class Recorder:
    """Records requests.

    Args:
        mode: ``clustering`` or ``classification``.
        version: The model's version.
    """

    def __init__(self, mode: str, version: int) -> None:
        self._common: dict[str, Any] = {"mode": mode, "model_version": version}
        self._metrics = Metrics(mode)
        self._access_log = AccessLog(pb_utils.Logger.log_warn)

    def record(self, answered: list[tuple[Any, dict[str, Any]]], refused: list[Any]) -> None:
        """Record the requests of a batch.

        Embeddings that came without ``FILE_BYTES`` are no images, but somebody's second look at some: they leave a
        line, and are not counted.

        Args:
            answered: Requests, each with its outputs by their names.
            refused: Requests with unusable parameters.
        """
        counted: list[tuple[str, str, float]] = []
        not_finite = 0
        lines = []
        for request, answer in answered:
            client = _client(request)
            errors = [error.decode("utf-8", "replace") for error in answer["ERROR"].ravel().tolist()]
            good = [row for row, error in enumerate(errors) if not error]
            labels, probabilities = (answer[name].ravel().tolist() for name in ("LABEL", "PROBABILITY"))
            sizes = pb_utils.get_input_tensor_by_name(request, "FILE_BYTES")
            if sizes is not None:
                counted += [(client, labels[row], probabilities[row]) for row in good]
                not_finite += sum(reason_name(error) == NOT_FINITE for error in errors if error)
            line = entry(
                client=client,
                request_id=request_id(request),
                file_bytes=None if sizes is None else sizes.as_numpy().ravel().tolist(),
                images=len(errors),
                errors=filter(None, errors),
                labels=[labels[row] for row in good],
                sim_thres=read_threshold(request.parameters()),
                **self._common,
            )
            lines.append(line)
        lines += map(self._refused, refused)
        self._metrics.count_answers(counted)
        self._metrics.count_not_finite(not_finite)
        self._metrics.count_lost_lines(self._access_log.write(lines))

    def close(self) -> None:
        """Write what the access log still has to write."""
        self._access_log.close()

    def _refused(self, request: Any) -> bytes:
        return entry(
            client=_client(request),
            request_id=request_id(request),
            file_bytes=None,
            images=len(pb_utils.get_input_tensor_by_name(request, "ERROR").as_numpy()),
            errors=(),
            sim_thres=None,
            refused=BAD_PARAMETERS,
            **self._common,
        )


def _client(request: Any) -> str:
    try:
        return client_id(request.parameters())
    except UnicodeDecodeError:
        return UNUSABLE_CLIENT
