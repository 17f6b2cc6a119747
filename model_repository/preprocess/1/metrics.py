"""The metrics of images and requests before the network."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from metric_families import lasting_families
from parameters import INVALID
from reasons import UNDECODABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

FAMILIES = {  # names and descriptions
    "classify_undecodable_images_total": "Images without an answer because they can't be decoded, by reason",
    "classify_rotated_images_total": "Images classified as stored although their EXIF orientation says otherwise",
    "classify_refused_requests_total": "Requests refused as a whole, by reason",
    "classify_decode_seconds": "Time to decode and resize an image, undecodable images included",
    "classify_image_bytes": "Size of an image as it was sent, undecodable images included",
    "classify_access_log_lost_lines_total": "Lines that the access log did not write, by model",
}
DECODE_BUCKETS_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]
FILE_BUCKETS_BYTES = [1e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8]
NO_DECODABLE_IMAGE, BUSY = "no_decodable_image", "busy"
REFUSALS = (NO_DECODABLE_IMAGE, *INVALID, BUSY)


class Metrics:
    """The metrics of ``preprocess``. All versions add to the same metrics, which live as long as Triton."""

    def __init__(self) -> None:
        undecodable, rotated, refused, decoding, sizes, lost = lasting_families(FAMILIES)
        # Every series exists from the start, so that its first count is an increase.
        self._undecodable = {code: undecodable.Metric(labels={"reason": code}) for code in UNDECODABLE}
        self._rotated = rotated.Metric(labels={})
        self._refused = {code: refused.Metric(labels={"reason": code}) for code in REFUSALS}
        self._decoding = decoding.Metric(labels={}, buckets=DECODE_BUCKETS_S)
        self._sizes = sizes.Metric(labels={}, buckets=FILE_BUCKETS_BYTES)
        self._lost = lost.Metric(labels={"model": "preprocess"})

    def count_decoded(
        self, undecodable: Iterable[str], seconds: Iterable[float], file_bytes: Iterable[int], notes: Iterable[str]
    ) -> None:
        """Count the images of a request.

        Args:
            undecodable: Code of the reason for each image that can't be decoded.
            seconds: Time to decode each image, in seconds.
            file_bytes: Size of each image as it was sent, in bytes.
            notes: Note on each image; "" for an image that is stored upright, or was turned.
        """
        if rotated := sum(map(bool, notes)):
            self._rotated.increment(rotated)
        for value in seconds:
            self._decoding.observe(value)
        for size in file_bytes:
            self._sizes.observe(size)
        for code, number in Counter(undecodable).items():
            self._undecodable[code].increment(number)

    def count_refused(self, reason: str) -> None:
        """Count a refused request, by one of ``REFUSALS``."""
        self._refused[reason].increment(1)

    def count_lost_lines(self, number: int) -> None:
        """Count lines that the access log lost."""
        if number:
            self._lost.increment(number)
