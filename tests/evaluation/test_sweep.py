"""Answers at every threshold, in few questions."""

from __future__ import annotations

import numpy as np

from inference_evaluation.sweep import THRESHOLDS, sweep


def test_sweep_finds_what_asking_at_every_threshold_finds() -> None:
    random = np.random.default_rng(0)
    similarities = random.uniform(-0.2, 1, (5, 3, 7)).astype(np.float32)  # queries, classes, base images of each
    similarities[3] = similarities[3, 0, 0]  # all alike
    asked = []

    def ask(rows: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        asked.append(len(rows))
        matches = (similarities[rows] >= np.float32(threshold)).sum(axis=2).astype(np.int32)
        ranked = matches * 10 + similarities[rows].max(axis=2)
        return ranked.argmax(axis=1), matches

    swept = sweep(ask, 5)
    for column, threshold in enumerate(THRESHOLDS):
        label, matches = ask(np.arange(5), threshold)
        assert swept.label[:, column].tolist() == label.tolist(), threshold
        assert swept.matches[:, column].tolist() == matches.sum(axis=1).tolist(), threshold


def test_queries_whose_matches_stay_the_same_are_asked_twice_only() -> None:
    asked = []

    def ask(rows: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        asked.append((len(rows), threshold))
        # Of two queries, one loses its only match between 0.5 and 0.51.
        matches = np.array([[1, 0], [int(threshold <= 0.5), 0]], np.int32)[rows]
        return np.zeros(len(rows), np.intp), matches

    sweep(ask, 2)
    assert asked[:2] == [(2, -1.0), (2, 1.0)]
    assert {count for count, _ in asked[2:]} == {1}
    assert len(asked) <= 2 + 8
