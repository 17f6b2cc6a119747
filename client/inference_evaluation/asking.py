"""Asks a server about labelled images: one pass for the answers, and what they would be at other thresholds."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from inference_client.answers import DETAIL_OUTPUTS, PLAIN_OUTPUTS, Tensors, read_entries
from inference_client.calls import Call, Options
from inference_client.failures import RequestError, describe
from inference_client.images import collect
from inference_client.settings import Settings
from inference_client.transport import MODEL, Connection
from inference_client.workers import WorkerPool, outcome_of
from inference_evaluation.labelled_images import LabelledImage
from inference_evaluation.sweep import THRESHOLDS, Swept, sweep

HEAD = "cluster_head"
EMBEDDING = "EMBEDDING"

T = TypeVar("T")


class EvaluationError(Exception):
    """An evaluation that came to no result; the message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What became of one image.

    Attributes:
        image: The image.
        error: Why it has no answer; None if it has one, and then the rest is set.
        label: The answer.
        probability: The answer's similarity; in classification mode its probability.
        scores: Each class's highest similarity; in classification mode its probability.
        matches: Each class's number of matches; empty in classification mode.
        neighbors: Name and similarity of the nearest base images, best first; empty in classification mode.
        labels: Name of the class at each of ``THRESHOLDS``, where nothing matches that of the nearest base image; None
            where the server could not be asked.
        matched: Whether anything matches, at each of ``THRESHOLDS``; likewise.
    """

    image: LabelledImage
    error: str | None = None
    label: str = ""
    probability: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    matches: dict[str, int] = field(default_factory=dict)
    neighbors: Sequence[tuple[str, float]] = ()
    labels: Sequence[str] | None = None
    matched: "NDArray[np.bool_] | None" = None

    @property
    def nearest_class(self) -> str:
        """The class of the highest score, first by name or index if several have it."""
        return max(self.scores, key=self.scores.__getitem__)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the server said.

    Attributes:
        version: Of the models that answered; None if the server does not tell.
        predictions: In the images' order.
        no_sweep: Why there are no answers at other thresholds; None if there are, or if thresholds have no meaning.
        threshold_above: The threshold in force is higher than this one of ``THRESHOLDS``; None if not known.
        threshold_below: And lower than this one.
    """

    version: int | None
    predictions: Sequence[Prediction]
    no_sweep: str | None = None
    threshold_above: float | None = None
    threshold_below: float | None = None


def ask(
    settings: Settings,
    images: Sequence[LabelledImage],
    *,
    sim_thres: float | None,
    progress: Callable[[int], object],
) -> Answers:
    """Have a server classify images.

    Args:
        settings: Of the server.
        images: At least one.
        sim_thres: Lowest similarity that is a match, -1 to 1; None leaves it to the server.
        progress: Told how many more images are finished, in the calling thread.

    Returns:
        The answers.

    Raises:
        EvaluationError: The server, or a request, failed, or the server was given another version meanwhile.
        OSError: An image file can't be read; raised before anything is sent.
    """
    collected = collect([image.path for image in images])
    findings = _Findings()
    known = threading.Event()
    pool: WorkerPool[Connection] = WorkerPool(
        lambda: _EvaluatingConnection(settings, known, findings), name="evaluation"
    )
    options = Options(sim_thres=None if sim_thres is None else str(sim_thres), details=True, settings=settings)
    try:
        try:
            served = findings.served = outcome_of(pool.submit(_served))
        except RequestError as failure:
            raise EvaluationError(failure.message) from failure
        results, _ = Call(pool, collected, max_images=served.max_batch_size, options=options, progress=progress).run()
        if findings.failure is not None or isinstance(results, dict):
            raise EvaluationError(
                f"{len(images) - findings.answered_images} of {len(images)} images were not answered: "
                f"{findings.failure}"
            )
        try:
            again = outcome_of(pool.submit(_served))
        except RequestError as failure:
            raise EvaluationError(failure.message) from failure
    finally:
        pool.close()
    if again.version != served.version:
        raise EvaluationError(
            f"the server's version changed from {served.version} to {again.version} during the evaluation, so the "
            "answers are a mixture. Run it again."
        )
    predictions = [_prediction(image, entry) for image, entry in zip(images, results, strict=True)]
    above, below = findings.bracket
    if findings.no_sweep is not None or above >= below or below > 1:
        above, below = -np.inf, np.inf
    return Answers(
        version=served.version,
        predictions=predictions,
        no_sweep=findings.no_sweep,
        threshold_above=None if np.isinf(above) else above,
        threshold_below=None if np.isinf(below) else below,
    )


@dataclass(frozen=True, kw_only=True)
class _Served:
    version: int | None
    max_batch_size: int


class _Findings:
    """What the connections of several threads find, beside the answers."""

    def __init__(self) -> None:
        self.served = _Served(version=None, max_batch_size=1)
        self.failure: str | None = None
        self.answered_images = 0
        self.no_sweep: str | None = None
        self.bracket = (-np.inf, np.inf)
        self._lock = threading.Lock()

    def fail(self, message: str) -> None:
        with self._lock:
            self.failure = self.failure or message

    def answer(self, images: int) -> None:
        with self._lock:
            self.answered_images += images

    def compare(self, swept: Swept, observed: "NDArray[np.int32]") -> None:
        """Learn between which thresholds the one in force lies, by the number of base images [N] that matched it."""
        lower = (swept.matches > observed[:, None]).any(axis=0)
        higher = (swept.matches < observed[:, None]).any(axis=0)
        with self._lock:
            above, below = self.bracket
            self.bracket = (
                max([above, *THRESHOLDS[lower].tolist()[-1:]]),
                min([below, *THRESHOLDS[higher].tolist()[:1]]),
            )


class _EvaluatingConnection(Connection):
    """Asks for all evidence, and then ``cluster_head`` alone, with the embeddings, at other thresholds."""

    def __init__(self, settings: Settings, known: threading.Event, findings: _Findings) -> None:
        super().__init__(settings, known)
        self._findings = findings
        self._network_classes: int | None = None

    def served(self) -> _Served:
        """Read what the server tells about the ensemble."""

        def request(client: InferenceServerClient) -> _Served:
            config = _config(client, model=MODEL, version="", headers=self._settings.headers)
            steps = config.get("ensemble_scheduling", {}).get("step", [])
            versions = [int(step["model_version"]) for step in steps if step["model_name"] == HEAD]
            return _Served(
                version=versions[0] if versions else None, max_batch_size=max(1, int(config["max_batch_size"]))
            )

        return self._read(request)

    def classify(self, contents: Sequence[bytes], *, sim_thres: str | None, details: bool) -> list[dict[str, Any]]:
        """Classify images, with the evidence; the entries have ``Labels`` and ``Matched`` as well."""

        def read(response: Tensors) -> list[dict[str, Any]]:
            entries = read_entries(response, len(contents), details=True)
            embeddings = response.as_numpy(EMBEDDING)
            if embeddings is None:
                raise ValueError(f"output {EMBEDDING} is missing")
            return [{**entry, EMBEDDING: row} for entry, row in zip(entries, embeddings, strict=True)]

        outputs = (*PLAIN_OUTPUTS, *DETAIL_OUTPUTS, EMBEDDING)
        try:
            entries = self._ask_ensemble(contents, outputs=outputs, sim_thres=sim_thres, read=read)
        except RequestError as failure:
            self._findings.fail(failure.message)
            raise
        self._findings.answer(len(contents))
        embedded = [(entry, entry.pop(EMBEDDING)) for entry in entries if EMBEDDING in entry]
        matched = [(entry, embedding) for entry, embedding in embedded if entry.get("Matches")]
        if matched and self._findings.no_sweep is None:
            try:
                self._sweep(*zip(*matched, strict=True))
            except RequestError as failure:
                self._findings.no_sweep = failure.message
        return entries

    def _sweep(self, entries: Sequence[dict[str, Any]], embeddings: Sequence["NDArray[np.float32]"]) -> None:
        classes = list(entries[0]["Scores"])
        nearest = np.array([np.argmax(list(entry["Scores"].values())) for entry in entries])
        rows_of_embeddings = np.stack(embeddings).astype(np.float32)
        network_classes = self._read_network_classes()

        def ask_head(rows: "NDArray[np.intp]", threshold: float) -> "tuple[NDArray[np.intp], NDArray[np.int32]]":
            def request(client: InferenceServerClient) -> "tuple[NDArray[np.intp], NDArray[np.int32]]":
                labels, matches = _ask_head(
                    client,
                    embeddings=rows_of_embeddings[rows],
                    network_classes=network_classes,
                    threshold=threshold,
                    version=self._pinned(),
                    headers=self._settings.headers,
                )
                chosen = [
                    classes.index(label) if any_match else nearest[row]
                    for label, any_match, row in zip(labels, matches.any(axis=1), rows, strict=True)
                ]
                return np.array(chosen, np.intp), matches

            return self._read(request)

        swept = sweep(ask_head, len(entries))
        observed = np.array([sum(entry["Matches"].values()) for entry in entries], np.int32)
        self._findings.compare(swept, observed)
        for entry, label, matches in zip(entries, swept.label, swept.matches, strict=True):
            entry["Labels"] = [classes[index] for index in label]
            entry["Matched"] = matches > 0

    def _read_network_classes(self) -> int:
        def request(client: InferenceServerClient) -> int:
            config = _config(client, model=HEAD, version=self._pinned(), headers=self._settings.headers)
            (probabilities,) = (each for each in config["input"] if each["name"] == "PROBABILITIES")
            return int(probabilities["dims"][0])

        if self._network_classes is None:
            self._network_classes = self._read(request)
        return self._network_classes

    def _pinned(self) -> str:
        return str(self._findings.served.version or "")

    def _read(self, request: Callable[[InferenceServerClient], T]) -> T:
        try:
            return self._retry(request)
        except Exception as error:
            raise describe(error, self._settings) from error


def _served(connection: Connection) -> _Served:
    assert isinstance(connection, _EvaluatingConnection)  # noqa: S101 - the pool makes no other
    return connection.served()


def _config(client: InferenceServerClient, *, model: str, version: str, headers: Any) -> dict[str, Any]:
    config: dict[str, Any] = client.get_model_config(model, version, headers=dict(headers))
    return config


def _ask_head(
    client: InferenceServerClient,
    *,
    embeddings: "NDArray[np.float32]",
    network_classes: int,
    threshold: float,
    version: str,
    headers: Any,
) -> "tuple[list[str], NDArray[np.int32]]":
    count = len(embeddings)
    inputs = []
    for name, datatype, values in (
        (EMBEDDING, "FP32", embeddings),
        # Not used in clustering mode, but an input.
        ("PROBABILITIES", "FP32", np.zeros((count, network_classes), np.float32)),
        ("ERROR", "BYTES", np.full((count, 1), b"", np.object_)),
    ):
        tensor = InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    outputs = [InferRequestedOutput(name, binary_data=True) for name in ("LABEL", "MATCHES")]
    response = client.infer(
        HEAD,
        inputs,
        model_version=version,
        outputs=outputs,
        headers=dict(headers),
        parameters={"sim_thres": str(threshold)},
    )
    labels, matches = (response.as_numpy(name) for name in ("LABEL", "MATCHES"))
    return [label.decode("utf-8", "replace") for label in labels.ravel()], matches


def _prediction(image: LabelledImage, entry: dict[str, Any]) -> Prediction:
    if "Error" in entry:
        return Prediction(image=image, error=entry["Error"])
    return Prediction(
        image=image,
        label=entry["Label"],
        probability=entry["Probability"],
        scores=entry["Scores"],
        matches=entry["Matches"],
        neighbors=[(each["Image"], each["Similarity"]) for each in entry["Neighbors"]],
        labels=entry.get("Labels"),
        matched=entry.get("Matched"),
    )
