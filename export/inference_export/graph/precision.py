"""Converting the network to int8 or fp16, and measuring what is lost and what is gained."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from inference_export.base_set.base_images import BaseImages
from inference_export.base_set.image_files import ImageFiles
from inference_export.base_set.scoring import Comparer, best_class, normalize
from inference_export.descriptions import describe_error
from inference_export.errors import PrecisionError
from inference_export.export_options import ExportOptions
from inference_export.graph.calibration import AUTO, FLOAT32, MIN_IMAGES, CalibrationSet, spread
from inference_export.graph.onnx_export import export_graph
from inference_export.graph.quantization import quantize
from inference_export.network.networks import Network, OnnxNetwork
from inference_export.network.users_code import users_code
from inference_export.onnx_session import SHOWN_ERROR_LENGTH, open_graph, run_batches, run_graph
from inference_export.progress import Progress

if TYPE_CHECKING:
    import onnxruntime

    from inference_export.network.preprocessing import Preprocessing

MIN_AGREEMENT = 0.99
MIN_COSINE = 0.999
MIN_SPEEDUP = 1.1
_TIMED_IMAGES = 8
_TIMED_ROUNDS = 5
_CANDIDATES = {"cpu": "int8", "gpu": "fp16"}  # for --precision auto, by device
_GPU = "CUDAExecutionProvider"  # ONNX Runtime's name
JUDGES = 256  # base images that label the held-out images; more only where there are more classes


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Base images that label the held-out images in clustering mode.

    Attributes:
        pixels: The images, uint8 [B, S, S, 3], one class after another.
        class_starts: First row of each class, ascending integers from 0.
        threshold: Lowest similarity that counts as a match, -1 to 1.
    """

    pixels: npt.NDArray[np.uint8]
    class_starts: npt.NDArray[np.intp]
    threshold: float


@dataclass(frozen=True, kw_only=True)
class PrecisionLoss:
    """The loss through int8 or fp16, on images that took no part in the calibration.

    Attributes:
        images: Number of held-out images.
        agreement: Share of these images with the same label as in float32, 0 to 1.
        cosine: Lowest cosine similarity between an image's embedding and its float32 embedding.
        judged_by: What gives the labels, in words.
    """

    images: int
    agreement: float
    cosine: float
    judged_by: str

    @property
    def is_acceptable(self) -> bool:
        """Whether the loss is within ``MIN_AGREEMENT`` and ``MIN_COSINE``."""
        return self.agreement >= MIN_AGREEMENT and self.cosine >= MIN_COSINE

    def __str__(self) -> str:
        return (
            f"{self.agreement:.1%} of labels equal those of float32 ({self.judged_by}), embeddings have a cosine of at "
            f"least {self.cosine:.5f}, on {self.images} held-out images"
        )


@dataclass(frozen=True, kw_only=True)
class Precision:
    """The precision that a network is served in.

    Attributes:
        name: ``fp32``, ``fp16`` or ``int8``.
        loss: The loss through int8 or fp16; None if it was not measured.
        reason: Why ``auto`` chose it; empty if the user named it.
    """

    name: str
    loss: PrecisionLoss | None = None
    reason: str = ""

    def __str__(self) -> str:
        chosen = f", chosen by auto: {self.reason}" if self.reason else ""
        return f"{self.name}{chosen}{f'; {self.loss}' if self.loss else ''}"


def set_precision(
    *,
    options: ExportOptions,
    network: Network,
    preprocessing: Preprocessing,
    graph: Path,
    base: BaseImages | None,
    chosen: CalibrationSet | None,
    images: ImageFiles,
    progress: Progress,
) -> Precision:
    """Replace a float32 graph by an int8 or fp16 graph, as the options say.

    With ``auto`` the graph is replaced if the loss is acceptable, and if the new graph is at least ``MIN_SPEEDUP``
    times as fast on this machine. The speed of fp16 counts only where ONNX Runtime finds a GPU.

    Args:
        options: The options of the export; ``precision``, ``device``, ``accept_loss`` and ``sim_thres`` are used.
        network: The network that was exported.
        preprocessing: The preprocessing that the network asks for.
        graph: The file of the float32 graph.
        base: Base images that decode; None in classification mode.
        chosen: The images for calibration and check; None: there are none.
        images: Reads and decodes images.
        progress: Shows the number of calibration images that have been run.

    Returns:
        The precision of the graph that the file holds now.

    Raises:
        PrecisionError: int8 or fp16 was asked for, and the loss is too high, too few images decode, or ONNX Runtime
            can't quantize the network.
        ChangedError: An image has changed since it was read.
    """
    if options.precision == FLOAT32:
        return Precision(name=FLOAT32)
    decides = options.precision == AUTO
    name = _CANDIDATES[options.device] if decides else options.precision
    smaller = graph.with_suffix(".smaller")
    loss = None
    try:
        if chosen is None:
            raise PrecisionError(
                f"there are fewer than {2 * MIN_IMAGES} images to check {name} with. Name a folder of typical images "
                f"with --calibration"
            )
        calibration_pixels, held_out_pixels = (
            _decode_good(images, files) for files in (chosen.calibration, chosen.held_out)
        )
        if name == "int8":
            with progress("calibrating int8", len(calibration_pixels)) as advance:
                quantize(graph, calibration_pixels, smaller, advance=advance)
        else:
            _export_half(network, preprocessing, smaller)
        judges = None if base is None else _judges(base, set(chosen.held_out), images, options.sim_thres)
        loss = _try_smaller(name, graph, smaller, held_out_pixels, judges)
        if not loss.is_acceptable and not options.accept_loss:
            raise PrecisionError(
                f"{name} was not exported: {loss}. At least {MIN_AGREEMENT:.0%} of labels and a cosine of {MIN_COSINE} "
                f"are needed.\n"
                f"  Name more typical images with --calibration, stay with fp32, or accept the loss with --accept_loss."
            )
        reason = _require_speedup(name, graph, smaller, held_out_pixels[:_TIMED_IMAGES], progress) if decides else ""
    except PrecisionError as error:
        smaller.unlink(missing_ok=True)
        if not decides:
            raise
        first, *_ = str(error).splitlines()
        return Precision(name=FLOAT32, reason=first.rstrip("."))
    smaller.replace(graph)
    return Precision(name=name, loss=loss, reason=reason)


def _try_smaller(
    name: str, graph: Path, smaller: Path, pixels: npt.NDArray[np.uint8], judges: Judges | None
) -> PrecisionLoss:
    """Measure the loss.

    Raises:
        NetworkError: The float32 graph fails.
        PrecisionError: The smaller graph does, as graphs with operators that the quantizer does not expect may.
    """
    full = open_graph(graph)
    run_graph(full, pixels[:1])
    try:
        return measure_loss(full, open_graph(smaller), pixels, judges)
    except Exception as error:  # ONNX Runtime raises many types
        raise PrecisionError(
            f"the network does not run in {name} ({describe_error(error)[:SHOWN_ERROR_LENGTH]}). Export it with "
            f"--precision fp32."
        ) from error


def _export_half(network: Network, preprocessing: Preprocessing, file: Path) -> None:
    if isinstance(network, OnnxNetwork):
        raise PrecisionError(
            f"fp16 is made from a PyTorch network, and {network.complete.path} is an .onnx file. Export the weights "
            f"with --network in its place, or stay with fp32"
        )
    import torch

    from inference_export.network.resnet50 import fold_batch_norms
    from inference_export.network.served import as_served

    with users_code("copying the network failed"):
        half = as_served(copy.deepcopy(fold_batch_norms(network.module)), preprocessing, torch.float16)
    export_graph(half, preprocessing.image_size, file)


def _require_speedup(name: str, graph: Path, smaller: Path, pixels: npt.NDArray[np.uint8], progress: Progress) -> str:
    """Say how much faster the smaller graph is.

    Raises:
        PrecisionError: It is not ``MIN_SPEEDUP`` times as fast.
    """
    import onnxruntime

    if name == "fp16" and _GPU not in onnxruntime.get_available_providers():
        return "its loss is small; its speed was not measured, since ONNX Runtime finds no GPU on this machine"
    providers = [_GPU] if name == "fp16" else None
    with progress(f"timing {name}", _TIMED_ROUNDS) as advance:
        speedup = measure_speedup(open_graph(graph, providers), open_graph(smaller, providers), pixels, advance=advance)
    if speedup < MIN_SPEEDUP:
        raise PrecisionError(
            f"{name} is {speedup:.2f} times as fast as fp32 on this machine, and at least {MIN_SPEEDUP} times would "
            f"be a gain"
        )
    return f"it is {speedup:.2f} times as fast as fp32 on this machine"


def measure_speedup(
    before: onnxruntime.InferenceSession,
    after: onnxruntime.InferenceSession,
    pixels: npt.NDArray[np.uint8],
    *,
    advance: Callable[[int], None] = lambda rounds: None,
) -> float:
    """Measure how many times as fast a graph is as another one.

    Args:
        before: The graph to compare with.
        after: The graph that may be faster.
        pixels: A batch of images, uint8 [N, S, S, 3].
        advance: Called with the number of rounds done since the last call.

    Returns:
        The ratio of the median times of alternate runs.
    """
    seconds: dict[onnxruntime.InferenceSession, list[float]] = {before: [], after: []}
    for number in range(_TIMED_ROUNDS + 1):
        for session, measured in seconds.items():
            began_s = time.perf_counter()
            run_graph(session, pixels)
            if number:  # the first run allocates
                measured.append(time.perf_counter() - began_s)
        advance(min(number, 1))
    return median(seconds[before]) / median(seconds[after])


def measure_loss(
    before: onnxruntime.InferenceSession,
    after: onnxruntime.InferenceSession,
    pixels: npt.NDArray[np.uint8],
    judges: Judges | None,
) -> PrecisionLoss:
    """Compare two graphs on held-out images.

    Args:
        before: The float32 graph.
        after: The int8 or fp16 graph.
        pixels: Held-out images, uint8 [N, S, S, 3].
        judges: Base images that label the held-out images; None: the classifier labels them.
    """
    full, reduced = (run_batches(session, pixels) for session in (before, after))
    if judges is None:
        labels = [probabilities.argmax(axis=1) for _, probabilities in (full, reduced)]
    else:
        thresholds = np.full(len(pixels), judges.threshold, np.float32)
        labels = []
        for session, (embeddings, _) in zip((before, after), (full, reduced), strict=True):
            base = normalize(run_batches(session, judges.pixels)[0])
            compared = Comparer(base, judges.class_starts).compare(embeddings, thresholds, 1)
            labels.append(best_class(compared.matches, compared.scores))
    cosines = (normalize(full[0]) * normalize(reduced[0])).sum(axis=1)
    return PrecisionLoss(
        images=len(pixels),
        agreement=float((labels[0] == labels[1]).mean()),
        cosine=float(cosines.min()),
        judged_by="by the classifier" if judges is None else f"by {len(judges.pixels)} base images",
    )


def _decode_good(images: ImageFiles, files: list[Path]) -> npt.NDArray[np.uint8]:
    pixels, reasons = images.decode(files)
    good = pixels[[not reason for reason in reasons]]
    if len(good) < MIN_IMAGES:
        raise PrecisionError(
            f"int8 and fp16 need {MIN_IMAGES} images that decode for calibration, and as many for the check. Only "
            f"{len(good)} of the {len(files)} images chosen for one of the two decode. The first undecodable one is "
            f"{next(f'{file}: {reason}' for file, reason in zip(files, reasons, strict=True) if reason)}. Mend these "
            f"images, or name others with --calibration."
        )
    return good


def _judges(base: BaseImages, held_out: set[Path], images: ImageFiles, threshold: float) -> Judges | None:
    """Choose base images, some of every class, that label the held-out images."""
    chosen = [
        (index, file)
        for index, (name, names) in enumerate(base.classes.items())
        for file in spread(
            [file for file in (base.folder / name / each for each in names) if file not in held_out],
            -(-JUDGES // len(base.classes)),
        )
    ]
    if not chosen:
        return None
    classes, files = zip(*chosen, strict=True)
    starts = np.unique(classes, return_index=True)[1]
    return Judges(pixels=images.decode(files)[0], class_starts=starts, threshold=threshold)
