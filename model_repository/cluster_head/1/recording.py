"""Records each request in the metrics and the access log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import triton_python_backend_utils as pb_utils
from access_log import AccessLog, entry
from metrics import Metrics
from reasons import NOT_FINITE

if TYPE_CHECKING:
    from questions import Answered, Question


class Recorder:
    """Records requests.

    Args:
        mode: ``clustering`` or ``classification``.
        version: The model's version.
    """

    def __init__(self, mode: str, version: int) -> None:
        self._common: dict[str, Any] = {"mode": mode, "model_version": version}
        self._is_clustering = mode == "clustering"
        self._metrics = Metrics(mode)
        self._access_log = AccessLog(pb_utils.Logger.log_warn)

    def record(self, answered: list[Answered], refused: list[Question]) -> None:
        """Record the requests of a batch.

        The images of a direct request were counted before, so it gets a line in the access log, but is not counted.

        Args:
            answered: Questions with their answers.
            refused: Questions with a problem.
        """
        counted: list[tuple[str, str, float]] = []
        not_finite = 0
        lines = []
        for question, outputs, reasons, threshold in answered:
            good = [row for row, reason in enumerate(reasons) if not reason]
            labels, probabilities = (outputs[name].ravel().tolist() for name in ("LABEL", "PROBABILITY"))
            codes = [reason.code for reason in reasons if reason]
            if not question.is_direct:
                counted += [(question.parameters.client, labels[row], probabilities[row]) for row in good]
                not_finite += codes.count(NOT_FINITE)
            line = entry(
                question.parameters,
                images=len(reasons),
                reasons=codes,
                labels=[labels[row] for row in good],
                threshold=threshold if self._is_clustering else None,
                is_direct=question.is_direct,
                **self._common,
            )
            lines.append(line)
        for question in refused:
            code = question.problem and question.problem.code
            line = entry(question.parameters, images=len(question.reasons), reasons=(), refused=code, **self._common)
            lines.append(line)
        self._metrics.count_answers(counted)
        self._metrics.count_not_finite(not_finite)
        self._metrics.count_lost_lines(self._access_log.write(lines))

    def close(self) -> None:
        """Write the access log's last lines."""
        self._access_log.close()
