"""The figures of unusual evaluations: honest, never NaN, never a crash."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from datetime import UTC, datetime
from statistics import NormalDist

import pytest

from inference_evaluation.figures import Figures, compute_figures
from inference_evaluation.predictions import Prediction
from inference_evaluation.report import plots
from inference_evaluation.report.page import Setting, render_page
from inference_evaluation.report.text import interval, percent, say
from inference_evaluation.shares import wilson
from tests.evaluation.answered import answers, classified, matched, undecodable

SETTING = Setting(
    folder="queries",
    url="http://localhost:8080",
    base_data=None,
    evaluated=datetime(2026, 1, 1, tzinfo=UTC),
    version="0",
    empty_classes=["nothing"],
    notes=[],
)
A_RIGHT = matched("a", {"a": [0.9, 0.8], "b": [0.5]})
B_RIGHT = matched("b", {"a": [0.3, 0.2], "b": [0.85]})
A_WRONG = matched("a", {"a": [0.4, 0.3], "b": [0.8]})
B_UNMATCHED_WRONG = matched("b", {"a": [0.6, 0.3], "b": [0.5]})
STRANGER_MATCHED = matched("stranger", {"a": [0.78, 0.3], "b": [0.5]})
STRANGER_UNMATCHED = matched("stranger", {"a": [0.1, 0.3], "b": [0.5]}, unknown_label="who?")
WITHHELD = matched("a", {"a": [0.5], "b": [0.1]}, unknown_label="who?")
CASES = {
    "two classes": [A_RIGHT, B_RIGHT, A_WRONG],
    "one class": [A_RIGHT, A_RIGHT, A_WRONG],
    "all wrong": [A_WRONG, B_UNMATCHED_WRONG],
    "all right": [A_RIGHT, B_RIGHT] * 10,
    "all undecodable": [undecodable("a"), undecodable("b")],
    "one image": [A_RIGHT],
    "strangers only": [STRANGER_MATCHED, STRANGER_UNMATCHED] * 6,
    "all unmatched": [B_UNMATCHED_WRONG] * 12,
    "constant scores": [matched("a", {"a": [0.5], "b": [0.5]}), matched("b", {"a": [0.5], "b": [0.5]})],
    "negative similarities": [matched("a", {"a": [-0.5], "b": [-0.9]}), matched("b", {"a": [-0.9], "b": [-1.0]})],
    "copies of base images": [matched("a", {"a": [1.0], "b": [0.0]}), matched("b", {"a": [0.0], "b": [1.0]})],
    "classification": [classified("a", {"a": 0.9, "b": 0.1}), classified("b", {"a": 0.6, "b": 0.4})],
    "classification, one class": [classified("a", {"a": 1.0})],
}


def figures_of(*predictions: Prediction, sim_thres: float | None = None) -> Figures:
    threshold = 0.75 if sim_thres is None else sim_thres
    return compute_figures(answers(predictions, threshold=threshold), sim_thres=sim_thres)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CASES, "many classes"])
def test_unusual_evaluation_gives_a_page_and_strict_json(name: str) -> None:
    predictions = CASES.get(name) or [
        matched(f"c{truth}", {f"c{name}": [0.9 if name == truth else 0.1] for name in range(40)}) for truth in range(40)
    ]
    figures = compute_figures(answers(predictions), sim_thres=None)
    json.dumps(asdict(figures), allow_nan=False)
    page = render_page(figures, predictions, SETTING)
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)
    assert say("accuracy", figures)
    assert sum(occupied.images for occupied in figures.calibration.bins) == figures.classified
    assert sum((*figures.histogram.right, *figures.histogram.wrong)) == figures.classified


@pytest.mark.parametrize(("count", "of"), [(0, 7), (7, 7), (59, 60), (1, 10_000)])
def test_interval_is_wilsons(count: int, of: int) -> None:
    share = wilson(count, of)
    deviation = NormalDist().inv_cdf(0.975)
    assert share.low is not None
    assert share.high is not None
    assert share.low <= count / of <= share.high
    assert share.high > share.low
    # From each end, the observed share is ``deviation`` of that end's standard errors away.
    for end in (share.low, share.high):
        assert (count / of - end) ** 2 == pytest.approx(deviation**2 * end * (1 - end) / of)


@pytest.mark.parametrize("of", [1, 7, 20, 30, 60, 1000])
def test_interval_ends_exactly_at_one_or_zero_where_all_or_none_count(of: int) -> None:
    assert wilson(of, of).high == 1
    assert wilson(0, of).low == 0
    assert interval(wilson(of, of)).endswith(" to 100\xa0%")
    assert interval(wilson(0, of)).startswith("0\xa0% to ")


def test_nothing_classified_leaves_every_figure_undefined() -> None:
    figures = figures_of(undecodable("a"), undecodable("b"))
    assert figures.mode is None
    assert figures.accuracy.share is None
    assert figures.calibration.ece is None
    assert figures.errors == {"truncated": ["a/bad.png", "b/bad.png"]}
    assert say("accuracy", figures) == ["Accuracy is not defined: none of 2 images was classified."]


def test_figures_that_are_not_defined_say_why() -> None:
    of_a, of_b = figures_of(A_RIGHT, A_RIGHT).classes
    assert (of_a.recall, of_a.roc_auc) == (1, None)
    assert of_a.notes == ["the ROC curve is not defined, since every image is of this class"]
    assert (of_b.precision, of_b.recall, of_b.f1) == (None, None, None)
    assert of_b.notes == [
        "precision is not defined, since no image got this label",
        "recall and the curves are not defined, since no image is of this class",
    ]


def test_unknown_label_is_right_for_an_image_of_no_class_of_the_servers_only() -> None:
    figures = figures_of(A_RIGHT, STRANGER_UNMATCHED, STRANGER_MATCHED)
    assert figures.unknown_label == "who?"
    assert figures.unknown_classes == ["stranger"]
    assert (figures.accuracy.count, figures.accuracy.of) == (2, 3)
    assert (figures.known_accuracy.count, figures.known_accuracy.of) == (1, 1)
    assert figures.macro_recall == 1
    assert figures_of(WITHHELD, A_RIGHT).accuracy.count == 1


@pytest.mark.parametrize(
    ("predictions", "verdict"),
    [
        ([A_RIGHT, B_UNMATCHED_WRONG], "It helps: an unknown label withholds 1 wrong answer and 0 right answers."),
        ([B_UNMATCHED_WRONG, matched("a", {"a": [0.5], "b": [0.1]})], "It makes no difference in number"),
        ([A_RIGHT, matched("a", {"a": [0.5], "b": [0.1]})], "It costs more than it saves"),
        ([WITHHELD], "an unknown label withholds 0 wrong answers and 1 right answer."),
        ([A_RIGHT, B_RIGHT], "would change nothing here"),
        ([STRANGER_UNMATCHED, STRANGER_MATCHED], "Nothing matches 1 of these, so an unknown label catches 50.0\xa0%"),
        ([classified("a", {"a": 1.0})], "no effect in classification mode"),
    ],
    ids=["helps", "even", "costs", "already-there", "all-matched", "strangers", "classification"],
)
def test_verdict_on_unknown_label(predictions: list[Prediction], verdict: str) -> None:
    assert verdict in " ".join(say("unknown_label", figures_of(*predictions)))


def test_counts_of_a_threshold_are_those_of_its_answers() -> None:
    figures = figures_of(A_RIGHT, A_WRONG, B_RIGHT, B_UNMATCHED_WRONG, STRANGER_MATCHED)
    trial = next(trial for trial in figures.trials if trial.threshold == 0.75)
    assert (trial.matched, trial.matched_right, trial.right, trial.right_with_unknown) == (4, 2, 2, 2)
    trial = next(trial for trial in figures.trials if trial.threshold == 0.79)
    assert (trial.matched, trial.matched_right, trial.right, trial.right_with_unknown) == (3, 2, 2, 3)


def test_recommended_threshold_is_the_middle_of_those_that_do_as_well() -> None:
    # Below 0.4, the two similar images of the other class win; above 0.8, nothing matches.
    figures = figures_of(*[matched("a", {"a": [0.8], "b": [0.4, 0.4]})] * 100, B_RIGHT)
    assert figures.choice is not None
    assert (figures.choice.low, figures.choice.threshold, figures.choice.high) == (0.41, 0.61, 0.8)
    assert figures.choice.trial.matched_right == 101
    assert figures.choice.held_out.count == 101


def test_thresholds_within_one_standard_error_of_the_best_are_as_good() -> None:
    plateau = [matched("a", {"a": [0.8], "b": [0.4, 0.4]})] * 99
    figures = figures_of(*plateau, matched("a", {"a": [0.6], "b": [0.4, 0.4]}))
    assert figures.choice is not None
    assert figures.choice.tolerance_images == 1
    assert (figures.choice.low, figures.choice.threshold, figures.choice.high) == (0.41, 0.61, 0.8)


def test_threshold_that_rejects_strangers_counts_that_as_right() -> None:
    strangers = [matched("stranger", {"a": [0.6], "b": [0.3]})] * 60
    figures = figures_of(*[matched("a", {"a": [0.9], "b": [0.1]})] * 40, *strangers)
    assert figures.choice is not None
    assert 0.6 < figures.choice.low <= figures.choice.threshold <= figures.choice.high == 0.9
    assert figures.choice.trial.right_with_unknown == 100


@pytest.mark.parametrize(
    ("predictions", "no_trials", "why"),
    [
        ([A_RIGHT] * 9, None, "at least 10 classified images; this evaluation has 9"),
        ([classified("a", {"a": 1.0})] * 20, None, "-thres has no effect"),
        ([undecodable("a")], None, "no image was classified"),
        (
            [replace(A_RIGHT, labels_at=None, matched_at=None)] * 20,
            "the gateway said no",
            "at other thresholds: the gateway said no",
        ),
        ([matched("a", {"a": [0.5], "b": [0.1]}), *[STRANGER_MATCHED] * 30], None, "a threshold that nothing reaches"),
        ([STRANGER_MATCHED] * 20, None, "at no threshold from 0 to 1 does any image have the right label and a match"),
    ],
    ids=["few", "classification", "undecodable", "not-told", "mostly-strangers", "strangers"],
)
def test_no_threshold_is_recommended_without_a_reason_for_it(
    predictions: list[Prediction], no_trials: str | None, why: str
) -> None:
    figures = compute_figures(answers(predictions, no_trials=no_trials), sim_thres=None)
    assert figures.choice is None
    (sentence,) = say("recommendation", figures)
    assert why in sentence
    assert re.search(r"\w\.$", sentence)


def test_threshold_in_force_is_told_with_where_it_comes_from() -> None:
    assert say("threshold_in_force", figures_of(A_RIGHT, sim_thres=0.8)) == ["0.8 (given with --sim_thres)"]
    assert say("threshold_in_force", figures_of(A_RIGHT)) == ["0.75 (the server's default)"]
    assert "none" in say("threshold_in_force", figures_of(classified("a", {"a": 1.0})))[0]
    assert say("threshold_in_force", figures_of(undecodable("a"))) == ["not known"]


@pytest.mark.parametrize(
    ("threshold", "unknown_label", "change", "headline"),
    [
        (
            0.7,
            None,
            False,
            "Keep the threshold of 0.7 (given with --sim_thres): "
            "these images show no gain from thresholds of 0.41 to 0.80.",
        ),
        (
            0.755,
            None,
            False,
            "Keep the threshold of 0.755 (given with --sim_thres): "
            "these images show no gain from thresholds of 0.41 to 0.80.",
        ),
        (0.3, None, True, "Use -thres 0.61 instead of 0.3 (given with --sim_thres)."),
        (
            0.95,
            None,
            False,
            "if you use labels without a match. With an unknown label, use -thres 0.61.",
        ),
        (0.95, "who?", True, "Use -thres 0.61 instead of 0.95"),
    ],
)
def test_change_is_advised_only_if_the_images_show_a_gain(
    threshold: float, unknown_label: str | None, change: bool, headline: str
) -> None:
    image = matched("a", {"a": [0.8], "b": [0.4, 0.4]}, threshold=threshold, unknown_label=unknown_label)
    figures = figures_of(*[image] * 100, sim_thres=threshold)
    assert figures.choice is not None
    assert (figures.choice.threshold, figures.change_advised) == (0.61, change)
    assert headline in say("recommendation", figures)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("threshold", "change"), [(0.3, True), (0.7, False)], ids=["change", "keep"])
def test_page_says_first_of_all_whether_to_change_the_threshold(threshold: float, change: bool) -> None:
    image = matched("a", {"a": [0.8], "b": [0.4, 0.4]}, threshold=threshold)
    page = render_page(figures_of(*[image] * 100, sim_thres=threshold), [image], SETTING)
    assert ("<dd>use 0.61" if change else "<dd>keep<small>") in page
    assert page.count("Use -thres") == (2 if change else 0)  # the heading, and the figure's text


def test_gain_within_one_standard_error_is_no_reason_for_a_change() -> None:
    plateau = [matched("a", {"a": [0.8], "b": [0.4, 0.4]})] * 59
    withheld = matched("a", {"a": [0.7], "b": [0.1]}, unknown_label="who?")
    figures = figures_of(*plateau, withheld, sim_thres=0.75)
    assert figures.choice is not None
    assert figures.threshold is not None
    gain = figures.choice.trial.right_with_unknown - figures.threshold.outcome.right_with_unknown
    assert gain == figures.choice.tolerance_images == 1
    assert figures.change_advised is False
    assert "no gain from thresholds of 0.41 to 0.80" in say("recommendation", figures)[0]


def test_thresholds_of_the_run_go_down_to_zero_where_none_of_them_changes_anything() -> None:
    figures = figures_of(*[matched("a", {"a": [0.8], "b": [0.4]})] * 20)
    assert figures.choice is not None
    assert (figures.choice.low, figures.choice.threshold, figures.choice.high) == (0, 0.4, 0.8)
    assert (figures.trials[0].threshold, figures.trials[-1].threshold) == (0, 1)
    assert say("threshold_curve", figures) == ["The curve begins at 0.00: lower thresholds change nothing."]
    assert "Thresholds below 0" in " ".join(say("recommendation", figures))


def test_curve_begins_lower_where_a_threshold_below_zero_changes_something() -> None:
    figures = figures_of(*[matched("a", {"a": [-0.2], "b": [-0.5, -0.5]})] * 20)
    assert figures.choice is None
    assert figures.trials[0].threshold == -0.5
    assert "begins at -0.50" in say("threshold_curve", figures)[0]


def test_cross_validation_measures_on_images_that_the_threshold_was_not_chosen_by() -> None:
    # Each image counts as right in only one of two ranges: 6 of 11 in the lower one, so all images together choose it.
    # Whenever a fold holds out more of these 6 than of the others, the rest choose the upper range.
    low, high = matched("a", {"a": [0.5], "b": [0.3, 0.3]}), matched("a", {"a": [0.8], "b": [0.6, 0.6]})
    figures = figures_of(*[low, high] * 5, low)
    assert figures.choice is not None
    assert figures.choice.trial.right_with_unknown == 6
    assert figures.choice.held_out.count == 4
    share = figures.choice.held_out
    assert (
        f"{share.count} of 11 counted as right: {percent(share.share)} (95 % interval {interval(share)})."
        in " ".join(say("recommendation", figures))
    )


def test_images_that_may_be_in_the_base_set_are_cautioned_of() -> None:
    copy = matched("a", {"a": [0.99995], "b": [0.1]})
    predictions = [copy, A_RIGHT, B_RIGHT]
    near = figures_of(*predictions)
    assert near.in_base_set is not None
    assert (near.in_base_set.near, near.in_base_set.copies) == (1, None)
    (caution,) = (sentence for sentence in say("cautions", near) if "base image" in sentence)
    assert caution.startswith("1 of 3 images may be a copy of a base image")
    assert "similarity of 0.9999 or more" in caution
    assert not any("base image" in sentence for sentence in say("cautions", figures_of(A_RIGHT, B_RIGHT)))


def test_files_that_are_compared_decide_whether_an_image_is_in_the_base_set() -> None:
    alike = matched("a", {"a": [1.0], "b": [0.1]})
    compared = compute_figures(answers([alike, B_RIGHT]), sim_thres=None, copies=frozenset())
    assert not any("base image" in sentence for sentence in say("cautions", compared))
    copied = compute_figures(answers([alike, B_RIGHT]), sim_thres=None, copies=frozenset([alike.image.path]))
    assert say("cautions", copied)[0].startswith("1 of 2 images is a copy of a base image.")


def test_image_that_was_not_decoded_is_named_with_the_reason() -> None:
    for figures in (figures_of(undecodable("a")), figures_of(A_RIGHT, undecodable("a"))):
        assert "Not decoded: a/bad.png: truncated" in say("cautions", figures)


def test_threshold_in_classification_mode_is_reported_to_have_no_effect() -> None:
    images = [classified("a", {"a": 0.9, "b": 0.1})]
    assert "--sim_thres had no effect" in say("cautions", figures_of(*images, sim_thres=0.9))[0]
    assert not any("--sim_thres" in sentence for sentence in say("cautions", figures_of(*images)))


@pytest.mark.slow
def test_wrong_answers_tell_the_matches_of_each_class_and_what_decided() -> None:
    wrong = [matched("a", {"a": [0.76], "b": [0.82]}), A_WRONG, B_UNMATCHED_WRONG]
    page = render_page(figures_of(*wrong), wrong, SETTING)
    assert "matches: b 1, a 1; similarity decided the tie</p>" in page
    assert "matches: b 1, a 0</p>" in page
    assert "no match; the nearest base image decided</p>" in page


@pytest.mark.parametrize(
    ("given", "legend"), [(0.3, "in force: 0.3<"), (None, "in force: 0.75<")], ids=["given", "servers"]
)
def test_threshold_in_force_and_where_the_accuracy_axis_begins_are_drawn(given: float | None, legend: str) -> None:
    predictions = [*[matched("a", {"a": [0.9], "b": [0.1]})] * 59, matched("a", {"a": [0.7], "b": [0.75]})]
    drawn = plots.draw_thresholds(figures_of(*predictions, sim_thres=given))
    assert legend in drawn
    assert "accuracy, from 0.95<" in drawn
    assert ">0.96<" in drawn
