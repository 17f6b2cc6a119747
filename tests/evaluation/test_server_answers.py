"""The requests of an evaluation, and its use of the answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference_client import Classify
from inference_client.answers import ImageTensors
from inference_client.tensors import TensorClient
from inference_evaluation.labelled_images import LabelledImage
from inference_evaluation.predictions import THRESHOLDS, Answers
from inference_evaluation.server_answers import EvaluationError, collect_answers
from inference_server.triton.process import RunningServer
from tests.evaluation.conftest import EXPORTED_THRESHOLD
from tests.evaluation.relay import Relay, relaying

BATCH_SIZE = 32


@pytest.fixture
def relay(clustering_server: RunningServer) -> Iterator[Relay]:
    with relaying(clustering_server.url) as relay:
        yield relay


def ask(url: str, paths: list[Path], *, sim_thres: float | None = None, client: Any = TensorClient) -> Answers:
    images = [LabelledImage(path=path, truth="alpha") for path in paths]
    with client(url) as server:
        return collect_answers(server, images, sim_thres=sim_thres, progress=lambda _: None)


@pytest.mark.parametrize("sim_thres", [None, 0.8, -1])
def test_threshold_in_force_and_version_are_those_of_the_answers(
    sim_thres: float | None, relay: Relay, query_images: list[Path]
) -> None:
    answers = ask(relay.url, query_images[:2], sim_thres=sim_thres)
    assert answers.threshold == (EXPORTED_THRESHOLD if sim_thres is None else sim_thres)
    assert answers.version == 1


def test_classification_mode_has_no_threshold_and_asks_for_no_others(
    classification_server: RunningServer, query_images: list[Path]
) -> None:
    with relaying(classification_server.url) as relay:
        answers = ask(relay.url, query_images[:2])
    assert (answers.version, answers.threshold, answers.no_trials) == (1, None, None)
    assert not [path for path, _ in relay.requests if "cluster_head" in path]


def test_every_threshold_is_answered_as_the_server_answers_it(relay: Relay, query_images: list[Path]) -> None:
    answers = ask(relay.url, query_images)
    with Classify(relay.url, details=True) as classify:
        for column in range(0, len(THRESHOLDS), 25):
            results, status = classify(query_images, sim_thres=float(THRESHOLDS[column]))
            assert status == 200
            for prediction, entry in zip(answers.predictions, results, strict=True):
                assert prediction.labels_at is not None
                assert prediction.matched_at is not None
                assert prediction.labels_at[column] == entry["Label"], THRESHOLDS[column]
                assert prediction.matched_at[column] == any(entry["Matches"].values()), THRESHOLDS[column]


def test_other_thresholds_take_one_request_a_batch(relay: Relay, query_images: list[Path]) -> None:
    images = (query_images * BATCH_SIZE)[: BATCH_SIZE + 1]
    answers = ask(relay.url, images)
    assert len(answers.predictions) == len(images)
    assert len(relay.paths("/models/ensemble/infer")) == 2
    assert relay.paths("/infer")[2:] == ["/v2/models/cluster_head/versions/1/infer"] * 2


def test_other_thresholds_are_left_out_with_a_reason_if_the_server_does_not_answer_at_them(
    clustering_server: RunningServer, query_images: list[Path]
) -> None:
    with relaying(clustering_server.url, refused="cluster_head") as relay:
        answers = ask(relay.url, query_images[:2])
    assert "not for you" in (answers.no_trials or "")
    assert [prediction.labels_at for prediction in answers.predictions] == [None, None]
    assert all(prediction.matches for prediction in answers.predictions)


def test_version_that_changes_in_between_fails_the_evaluation(
    clustering_server: RunningServer, query_images: list[Path]
) -> None:
    class ReloadedMeanwhile(TensorClient):
        def images(self, *arguments: Any, **options: Any) -> Iterator[ImageTensors]:
            for number, image in enumerate(super().images(*arguments, **options), start=1):
                yield replace(image, tensors={**image.tensors, "VERSION": np.array([number])})

    with pytest.raises(EvaluationError, match="version changed from 1 to 2 during the evaluation"):
        ask(clustering_server.url, query_images[:2], client=ReloadedMeanwhile)


def test_undecodable_images_alone_have_their_reasons_and_no_threshold(relay: Relay, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    answers = ask(relay.url, [tmp_path / "bad.png"])
    assert answers.predictions[0].error
    assert (answers.version, answers.threshold, answers.no_trials) == (None, None, None)
