"""What Prometheus is told of images on their way to the network."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import triton_python_backend_utils as pb_utils
from access_log import UNDECODABLE_REASONS, reason_name

if TYPE_CHECKING:
    from collections.abc import Iterable

DECODE_BUCKETS_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]
NO_DECODABLE_IMAGE, BAD_THRESHOLD, NOT_TEXT, BUSY = REFUSALS = "no_decodable_image", "threshold", "not_text", "busy"


class Metrics:
    """The metrics of ``preprocess``. Triton keeps one of each name, which all versions add to, until it ends."""

    def __init__(self) -> None:
        self._families = (
            pb_utils.MetricFamily(
                name="classify_undecodable_images_total",
                description="Images without an answer because they can't be decoded, by reason",
                kind=pb_utils.MetricFamily.COUNTER,
            ),
            pb_utils.MetricFamily(
                name="classify_refused_requests_total",
                description="Requests refused as a whole, by reason",
                kind=pb_utils.MetricFamily.COUNTER,
            ),
            pb_utils.MetricFamily(
                name="classify_decode_seconds",
                description="Time to decode and resize an image, undecodable ones too",
                kind=pb_utils.MetricFamily.HISTOGRAM,
            ),
            pb_utils.MetricFamily(
                name="classify_access_log_lost_lines_total",
                description="Lines that the access log did not write, by model",
                kind=pb_utils.MetricFamily.COUNTER,
            ),
        )
        undecodable, refused, decoding, lost = self._families
        # All from the beginning, so that the first one of a reason is an increase.
        self._undecodable = {name: undecodable.Metric(labels={"reason": name}) for name in UNDECODABLE_REASONS}
        self._refused = {name: refused.Metric(labels={"reason": name}) for name in REFUSALS}
        self._decoding = decoding.Metric(labels={}, buckets=DECODE_BUCKETS_S)
        self._lost = lost.Metric(labels={"model": "preprocess"})

    def count_decoded(self, errors: Iterable[str], seconds: Iterable[float]) -> None:
        """Count the images of a batch.

        Args:
            errors: Each image's reason, "" for a decoded one.
            seconds: Time that each took.
        """
        for value in seconds:
            self._decoding.observe(value)
        for name, number in Counter(reason_name(error) for error in errors if error).items():
            self._undecodable[name].increment(number)

    def count_refused(self, reason: str) -> None:
        """Count a refused request, by one of ``REFUSALS``."""
        self._refused[reason].increment(1)

    def count_lost_lines(self, number: int) -> None:
        """Count lines that the access log lost."""
        if number:
            self._lost.increment(number)
