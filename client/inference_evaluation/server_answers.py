"""A server's answers to labelled images, at the threshold in force and at all others."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference_client.answers import output_names, read_entry
from inference_client.failures import RequestError
from inference_client.tensors import TensorClient
from inference_evaluation.labelled_images import LabelledImage
from inference_evaluation.predictions import THRESHOLDS, Answers, Prediction

HEAD = "cluster_head"
EMBEDDING, PROBABILITIES, CLASS_AT = "EMBEDDING", "PROBABILITIES", "CLASS_AT"


class EvaluationError(Exception):
    """An evaluation has no result; the message says why and what to do."""


def collect_answers(
    client: TensorClient,
    images: Sequence[LabelledImage],
    *,
    sim_thres: float | None,
    progress: Callable[[int], object],
) -> Answers:
    """Have a server classify images.

    Args:
        client: The server.
        images: The images, at least one.
        sim_thres: Lowest similarity that counts as a match, -1 to 1; None leaves it to the server.
        progress: Called with the number of images answered since the last call.

    Returns:
        The answers.

    Raises:
        EvaluationError: A request failed, or the server's version changed.
        OSError: An image file can't be read; raised before anything is sent.
    """
    outputs = (*output_names(details=True), EMBEDDING)
    answers = client.images([image.path for image in images], outputs=outputs, sim_thres=sim_thres)
    predictions: list[Prediction] = []
    embeddings: dict[int, NDArray[np.float32]] = {}  # of images that the server compared with base images, by position
    version: int | None = None
    threshold: float | None = None
    try:
        for image, answer in zip(images, answers, strict=True):
            entry = read_entry(answer, details=True)
            if "Error" not in entry:
                _require_same_version(version, entry["Version"])
                version, threshold = entry["Version"], entry["Threshold"]
                if threshold is not None:
                    embeddings[len(predictions)] = answer.tensors[EMBEDDING]
            predictions.append(_prediction(image, entry))
            progress(1)
    except RequestError as failure:
        unanswered = f"{len(images) - len(predictions)} of {len(images)} images were not answered"
        raise EvaluationError(f"{unanswered}: {failure.message}") from failure
    no_trials = None
    if embeddings:
        try:
            class_at = _ask_at_thresholds(client, np.stack(list(embeddings.values())), version=str(version))
        except RequestError as failure:
            no_trials = failure.message
        else:
            for position, classes in zip(embeddings, class_at, strict=True):
                predictions[position] = _with_trials(predictions[position], classes)
    return Answers(predictions=predictions, version=version, threshold=threshold, no_trials=no_trials)


def _require_same_version(before: int | None, now: int) -> None:
    if before not in {None, now}:
        raise EvaluationError(
            f"The server's version changed from {before} to {now} during the evaluation, so its answers can't be "
            "compared. Run the evaluation again."
        )


def _prediction(image: LabelledImage, entry: dict[str, Any]) -> Prediction:
    if "Error" in entry:
        return Prediction(image=image, error=entry["Error"])
    return Prediction(
        image=image,
        label=entry["Label"],
        probability=entry["Probability"],
        scores=entry["Scores"],
        matches=entry["Matches"],
        neighbors=[(neighbor["Image"], neighbor["Similarity"]) for neighbor in entry["Neighbors"]],
    )


def _ask_at_thresholds(client: TensorClient, embeddings: NDArray[np.float32], *, version: str) -> NDArray[np.int32]:
    """Ask ``cluster_head`` alone, in batches: without the network, a request takes milliseconds.

    Args:
        client: The server.
        embeddings: The server's embeddings of the images, float32 [N, D].
        version: The version that answered.

    Returns:
        Index of the class that wins at each of ``THRESHOLDS``, int32 [N, T]; -1 if nothing matches.

    Raises:
        RequestError: A request failed.
    """
    config = client.config(HEAD, version=version)
    (network_classes,) = (tensor["dims"][0] for tensor in config["input"] if tensor["name"] == PROBABILITIES)
    batch_size = max(1, int(config["max_batch_size"]))
    parts = []
    for start in range(0, len(embeddings), batch_size):
        batch = embeddings[start : start + batch_size]
        inputs = {
            EMBEDDING: batch,
            PROBABILITIES: np.zeros((len(batch), int(network_classes)), np.float32),  # unused in clustering mode
            "ERROR": np.full((len(batch), 1), b"", object),
            "THRESHOLDS": np.tile(THRESHOLDS.astype(np.float32), (len(batch), 1)),
        }
        parts.append(client.infer(HEAD, inputs, outputs=(CLASS_AT,), version=version)[CLASS_AT])
    return np.concatenate(parts)


def _with_trials(prediction: Prediction, class_at: NDArray[np.int32]) -> Prediction:
    classes = list(prediction.scores)
    nearest = prediction.nearest_class
    labels = [nearest if index < 0 else classes[index] for index in class_at.tolist()]
    return replace(prediction, labels_at=labels, matched_at=class_at >= 0)
