"""Records each request in the metrics and the access log, after its answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import triton_python_backend_utils as pb_utils
from access_log import AccessLog, entry
from background import Background
from metrics import Metrics
from reasons import NOT_FINITE

if TYPE_CHECKING:
    from parameters import Parameters
    from questions import Answered, Question
    from reasons import Reason


class Record(NamedTuple):
    """What is kept of a request until it is recorded: none of Triton's memory.

    Attributes:
        time_s: Time of the answer, in seconds since 1970.
        parameters: The request's parameters.
        reasons: Why each row has no answer; ``NONE`` for a row with an answer.
        labels: Label of each row, texts [N, 1]; None if the request was refused.
        probabilities: Probability of each label, float32 [N, 1]; None if the request was refused.
        threshold: The threshold in force; None if the request was refused, or in classification mode.
        is_direct: Whether the request came to this model directly.
        refused: Code of the reason if the whole request was refused; None if it was answered.
    """

    time_s: float
    parameters: Parameters
    reasons: list[Reason]
    labels: Any = None
    probabilities: Any = None
    threshold: float | None = None
    is_direct: bool = False
    refused: str | None = None


class Recorder:
    """Records requests in a thread of its own.

    Args:
        mode: ``clustering`` or ``classification``.
        version: The model's version.
    """

    def __init__(self, mode: str, version: int) -> None:
        self._common: dict[str, Any] = {"mode": mode, "model_version": version}
        self._is_clustering = mode == "clustering"
        self._metrics = Metrics(mode)
        self._access_log = AccessLog(pb_utils.Logger.log_warn)
        self._background = Background(self._record, pb_utils.Logger.log_warn, name="recording")

    def record(self, answered: list[Answered], refused: list[Question]) -> None:
        """Have the requests of a batch recorded.

        Args:
            answered: Questions with their answers.
            refused: Questions with a problem.
        """
        now_s = time.time()
        for question, outputs, reasons, threshold in answered:
            in_force = threshold if self._is_clustering else None
            labels, probabilities = outputs["LABEL"], outputs["PROBABILITY"]
            record = Record(now_s, question.parameters, reasons, labels, probabilities, in_force, question.is_direct)
            self._background.add(record)
        for question in refused:
            code = question.problem and question.problem.code
            self._background.add(Record(now_s, question.parameters, question.reasons, refused=code))

    def close(self) -> None:
        """Record what waits, and write the access log's last lines."""
        self._background.close()
        self._access_log.close()

    def _record(self, records: list[Record]) -> None:
        """Record requests. The images of a direct one were counted before, so it gets a line, but is not counted."""
        counted: list[tuple[str, str, float]] = []
        not_finite = 0
        lines = []
        for record in records:
            is_answered = record.refused is None
            good = [row for row, reason in enumerate(record.reasons) if is_answered and not reason]
            labels = [record.labels[row, 0] for row in good]
            codes = [reason.code for reason in record.reasons if is_answered and reason]
            if not record.is_direct:
                probabilities = (float(record.probabilities[row, 0]) for row in good)
                client = record.parameters.client
                counted += [(client, label, value) for label, value in zip(labels, probabilities, strict=True)]
                not_finite += codes.count(NOT_FINITE)
            line = entry(
                record.parameters,
                time_s=record.time_s,
                images=len(record.reasons),
                reasons=codes,
                labels=labels,
                threshold=record.threshold,
                is_direct=record.is_direct,
                refused=record.refused,
                **self._common,
            )
            lines.append(line)
        lost = self._access_log.write(lines)
        self._metrics.count_answers(counted)
        self._metrics.count_not_finite(not_finite)
        self._metrics.count_lost_lines(lost)
