"""The metrics of the answers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from metric_families import lasting_families
from parameters import NOT_TRAFFIC, KnownClients

if TYPE_CHECKING:
    from collections.abc import Iterable

FAMILIES = {  # names and descriptions
    "classify_images_total": "Images that were given a label, by client, label and mode",
    "classify_probability": "Probability of the label: in clustering mode its highest similarity, -1 to 1",
    "classify_not_finite_images_total": "Images without an answer because the network's output is not finite",
    "classify_access_log_lost_lines_total": "Lines that the access log did not write, by model",
}
# Finer where thresholds and most answers lie.
PROBABILITY_BUCKETS = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0]


class Metrics:
    """The metrics of ``cluster_head``. All versions add to the same metrics, which live as long as Triton.

    Args:
        mode: ``clustering`` or ``classification``.
    """

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._image_family, probability, not_finite, lost = lasting_families(FAMILIES)
        self._images: dict[tuple[str, str], Any] = {}
        self._clients = KnownClients()
        self._probability = probability.Metric(labels={"mode": mode}, buckets=PROBABILITY_BUCKETS)
        self._not_finite = not_finite.Metric(labels={})
        self._lost = lost.Metric(labels={"model": "cluster_head"})

    def count_answers(self, answers: Iterable[tuple[str, str, float]]) -> None:
        """Count the images of a batch that have an answer.

        Args:
            answers: Client, label and the label's probability of each image.
        """
        images: Counter[tuple[str, str]] = Counter()
        for client, label, probability in answers:
            images[self._clients.label(client), label] += 1
            if client not in NOT_TRAFFIC:
                self._probability.observe(probability)
        for (client, label), number in images.items():
            if (client, label) not in self._images:
                labels = {"client": client, "label": label, "mode": self._mode}
                self._images[client, label] = self._image_family.Metric(labels=labels)
            self._images[client, label].increment(number)

    def count_not_finite(self, number: int) -> None:
        """Count images for which the network's output is not finite."""
        if number:
            self._not_finite.increment(number)

    def count_lost_lines(self, number: int) -> None:
        """Count lines that the access log lost."""
        if number:
            self._lost.increment(number)
