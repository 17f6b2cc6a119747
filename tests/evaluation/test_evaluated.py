"""Evaluations of real servers: the figures agree with scikit-learn's from the CSV, and with the server's answers."""

from __future__ import annotations

import csv
import html
import json
from typing import Any

import numpy as np
import pytest

from inference_client import Classify
from inference_server.triton.process import RunningServer
from tests.evaluation.conftest import EXPORTED_THRESHOLD, HOSTILE_CLASS, HOSTILE_FILE, Evaluated


def _rows(evaluated: Evaluated) -> list[dict[str, str]]:
    with (evaluated.out / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _figures(evaluated: Evaluated) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((evaluated.out / "evaluation.json").read_text(), parse_constant=refuse)


@pytest.fixture(params=["clustering_evaluation", "classification_evaluation"])
def evaluated(request: pytest.FixtureRequest) -> Evaluated:
    return request.getfixturevalue(request.param)


def test_figures_are_scikit_learns_of_the_csv(evaluated: Evaluated) -> None:
    from sklearn import metrics  # takes seconds to import
    from sklearn.calibration import calibration_curve

    figures = _figures(evaluated)
    rows = [row for row in _rows(evaluated) if not row["error"]]
    truth, label = ([row[name] for row in rows] for name in ("truth", "label"))
    assert figures["images"] == len(_rows(evaluated))
    assert figures["classified"] == len(rows)
    assert figures["accuracy"]["share"] == metrics.accuracy_score(truth, label)
    assert [int(row["right"]) for row in rows] == [int(a == b) for a, b in zip(truth, label, strict=True)]

    report = metrics.classification_report(truth, label, output_dict=True, zero_division=np.nan)
    for class_figures in figures["classes"]:
        expected = report.get(class_figures["name"])
        if expected is None:
            assert class_figures["images"] == class_figures["answered"] == 0
            continue
        for name, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert (np.nan if class_figures[name] is None else class_figures[name]) == pytest.approx(
                expected[theirs], nan_ok=True
            ), name
        scores = [float(row.get(f"score:{class_figures['name']}") or "nan") for row in rows]
        if not np.isnan(scores).any() and class_figures["images"]:
            of_class = [name == class_figures["name"] for name in truth]
            assert class_figures["roc_auc"] == pytest.approx(metrics.roc_auc_score(of_class, scores))
            assert class_figures["average_precision"] == pytest.approx(
                metrics.average_precision_score(of_class, scores)
            )
            (roc,) = (curve for curve in figures["curves"]["roc"] if curve["name"] == class_figures["name"])
            assert metrics.auc(roc["x"], roc["y"]) == pytest.approx(class_figures["roc_auc"])

    matrix = figures["confusion"]
    for name, counts in zip(matrix["truths"], matrix["counts"], strict=True):
        for answer, count in zip(matrix["labels"], counts, strict=True):
            assert count == sum(pair == (name, answer) for pair in zip(truth, label, strict=True))

    right = [int(row["right"]) for row in rows]
    probability = np.clip([float(row["probability"]) for row in rows], 0, 1)
    accuracies, means = calibration_curve(right, probability, n_bins=10)
    filled = [occupied for occupied in figures["calibration"]["bins"] if occupied["images"]]
    assert [occupied["accuracy"] for occupied in filled] == pytest.approx(accuracies.tolist())
    assert [occupied["mean_probability"] for occupied in filled] == pytest.approx(means.tolist())
    sizes = np.array([occupied["images"] for occupied in filled])
    assert figures["calibration"]["ece"] == pytest.approx((sizes * abs(accuracies - means)).sum() / len(rows))
    assert sum(figures["histogram"]["right"]) == sum(right)
    assert sum(figures["histogram"]["wrong"]) == len(rows) - sum(right)


def test_trials_are_the_servers_answers_at_their_thresholds(
    clustering_evaluation: Evaluated, clustering_server: RunningServer
) -> None:
    rows = [row for row in _rows(clustering_evaluation) if not row["error"]]
    files = [
        path for path in sorted(clustering_evaluation.images.rglob("*")) if path.is_file() and path.suffix != ".jpg"
    ]
    assert len(files) == len(rows)
    trials = _figures(clustering_evaluation)["trials"]
    with Classify(clustering_server.url, details=True) as classify:
        for trial in trials[:: len(trials) // 4]:
            results, status = classify(files, sim_thres=trial["threshold"])
            assert status == 200
            matched = [any(entry["Matches"].values()) for entry in results]
            right = [entry["Label"] == file.parent.name for entry, file in zip(results, files, strict=True)]
            assert trial["matched"] == sum(matched)
            assert trial["right"] == sum(right)
            assert trial["matched_right"] == sum(np.logical_and(matched, right))


def test_threshold_in_force_is_the_exported_one(clustering_evaluation: Evaluated) -> None:
    threshold = _figures(clustering_evaluation)["threshold"]
    assert (threshold["value"], threshold["given"]) == (EXPORTED_THRESHOLD, None)
    page = html.unescape((clustering_evaluation.out / "report.html").read_text())
    assert f"{EXPORTED_THRESHOLD} (the server's default)" in page


def test_facts_of_the_server_and_the_folder_are_told(clustering_evaluation: Evaluated) -> None:
    figures = _figures(clustering_evaluation)
    assert figures["mode"] == "clustering"
    assert figures["version"] == 1
    assert figures["unknown_classes"] == [HOSTILE_CLASS]
    assert figures["setting"]["empty_classes"] == ["nothing"]
    ((reason, names),) = figures["errors"].items()
    assert [name.split("/")[1] for name in names] == ["broken.jpg"]
    assert f"Not decoded: {names[0]}: {reason}" in clustering_evaluation.stdout
    assert "whose class the server knows" in clustering_evaluation.stdout
    assert "Evaluating: 18 of 18 (100 %)" in clustering_evaluation.stderr


def test_classification_mode_has_trials_of_the_probability_and_no_threshold(
    classification_evaluation: Evaluated,
) -> None:
    figures = _figures(classification_evaluation)
    assert figures["mode"] == "classification"
    assert (figures["threshold"], figures["choice"]) == (None, None)
    assert "-thres has no effect" in figures["no_choice"]
    rows = _rows(classification_evaluation)
    assert "matches:other" not in rows[0]
    for trial in figures["trials"]:
        reached = [row for row in rows if float(row["probability"]) >= trial["threshold"]]
        assert (trial["matched"], trial["matched_right"]) == (len(reached), sum(int(row["right"]) for row in reached))


def test_nearest_base_image_of_a_copy_is_its_original(clustering_evaluation: Evaluated) -> None:
    (copy,) = (row for row in _rows(clustering_evaluation) if row["file"].endswith("gnp.png"))
    assert HOSTILE_FILE not in copy["file"]  # characters that change the direction of writing are replaced
    assert copy["nearest"].split("/")[0] == copy["truth"]
    assert float(copy["nearest_similarity"]) == pytest.approx(1, abs=1e-4)
    assert _figures(clustering_evaluation)["in_base_set"]["copies"] == 1
    assert "1 of 17 images is a copy of a base image" in clustering_evaluation.stdout
    assert "1 of 17 images is a copy of a base image" in (clustering_evaluation.out / "report.html").read_text()


def test_recommended_threshold_and_whether_to_change_are_told_to_programs(clustering_evaluation: Evaluated) -> None:
    figures = _figures(clustering_evaluation)
    assert 0 <= figures["choice"]["low"] <= figures["choice"]["threshold"] <= figures["choice"]["high"] <= 1
    assert figures["change_advised"] in (True, False)
    rows = [row for row in _rows(clustering_evaluation) if not row["error"]]
    matches = [name for name in rows[0] if name.startswith("matches:")]
    in_force = figures["threshold"]["outcome"]
    assert in_force["matched"] == sum(any(int(row[name]) for name in matches) for row in rows)
    assert in_force["right"] == sum(int(row["right"]) for row in rows)
