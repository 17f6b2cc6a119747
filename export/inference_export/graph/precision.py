"""The network in fewer bits, and what that costs on images that took no part in it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from inference_export.base_set.base_images import BaseImages
from inference_export.base_set.image_files import ImageFiles
from inference_export.base_set.scoring import Comparer, best_class, normalize
from inference_export.errors import PrecisionError
from inference_export.export_options import ExportOptions
from inference_export.graph.calibration import MIN_IMAGES, CalibrationSet, spread
from inference_export.graph.onnx_export import export_graph
from inference_export.graph.quantization import quantize
from inference_export.network.users_code import users_code
from inference_export.onnx_session import open_graph, run_batches

if TYPE_CHECKING:
    import onnxruntime
    from torch import nn

    from inference_export.network.preprocessing import Preprocessing

MIN_AGREEMENT = 0.99
MIN_COSINE = 0.999
JUDGES = 256  # base images that give held-out ones their labels, at least one of each class


@dataclass(frozen=True, kw_only=True)
class Judges:
    """Base images that give held-out images their labels in clustering mode.

    Args:
        pixels: uint8 [B, S, S, 3], one class after another.
        class_starts: First row of each class, ascending integers from 0.
        threshold: Lowest similarity that is a match, -1 to 1.
    """

    pixels: npt.NDArray[np.uint8]
    class_starts: npt.NDArray[np.intp]
    threshold: float


@dataclass(frozen=True, kw_only=True)
class PrecisionLoss:
    """What fewer bits cost, on images that took no part in the calibration.

    Args:
        images: Number of held-out images.
        agreement: Share of them that get the label which float32 gives them, 0 to 1.
        cosine: Lowest cosine similarity of an image's embedding with its float32 one.
        judged_by: What gave the labels, in words.
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
            f"{self.agreement:.1%} of labels as float32's ({self.judged_by}), embeddings at a cosine of at least "
            f"{self.cosine:.5f}, on {self.images} held-out images"
        )


def reduce_precision(
    *,
    options: ExportOptions,
    network: nn.Module,
    preprocessing: Preprocessing,
    graph: Path,
    base: BaseImages | None,
    chosen: CalibrationSet,
    images: ImageFiles,
    progress: Callable[[str, int], AbstractContextManager[Callable[[int], None]]],
) -> PrecisionLoss:
    """Replace a float32 graph by one in fewer bits, if that costs no more than is sound.

    Args:
        options: ``precision``, ``accept_loss`` and ``sim_thres`` count.
        network: The network that the graph was exported from.
        preprocessing: What it asks of images.
        graph: The float32 graph, replaced.
        base: The base set; None in classification mode.
        chosen: What it is calibrated with and checked on.
        images: Reads and decodes images.
        progress: Given a label and a total, shows how far the calibration is.

    Returns:
        What it costs.

    Raises:
        PrecisionError: It costs more.
        ChangedError: An image was read before, and is another now.
    """
    calibration_pixels, held_out_pixels = (
        _decode_good(images, files) for files in (chosen.calibration, chosen.held_out)
    )
    smaller = graph.with_suffix(".smaller")
    if options.precision == "int8":
        with progress("calibrating int8", len(calibration_pixels)) as advance:
            quantize(graph, calibration_pixels, smaller, advance=advance)
    else:
        import torch

        from inference_export.network.served import as_served

        with users_code("copying the network failed"):
            half = as_served(copy.deepcopy(network), preprocessing, torch.float16)
        export_graph(half, preprocessing.image_size, smaller)
    judges = None if base is None else _judges(base, set(chosen.held_out), images, options.sim_thres)
    loss = measure_loss(open_graph(graph), open_graph(smaller), held_out_pixels, judges)
    if not loss.is_acceptable and not options.accept_loss:
        raise PrecisionError(
            f"{options.precision} was not exported: {loss}. At least {MIN_AGREEMENT:.0%} and {MIN_COSINE} are sound.\n"
            f"  Calibrate with more typical images (--calibration), stay with fp32, or accept it with --accept_loss."
        )
    smaller.replace(graph)
    return loss


def measure_loss(
    before: onnxruntime.InferenceSession,
    after: onnxruntime.InferenceSession,
    pixels: npt.NDArray[np.uint8],
    judges: Judges | None,
) -> PrecisionLoss:
    """Compare two graphs on held-out images.

    Args:
        before: The float32 graph.
        after: The one in fewer bits.
        pixels: Held-out images, uint8 [N, S, S, 3].
        judges: What gives the labels; None: the classifier.
    """
    wanted, found = (run_batches(session, pixels) for session in (before, after))
    if judges is None:
        labels = [probabilities.argmax(axis=1) for _, probabilities in (wanted, found)]
    else:
        thresholds = np.full(len(pixels), judges.threshold, np.float32)
        labels = []
        for session, (embeddings, _) in zip((before, after), (wanted, found), strict=True):
            base = normalize(run_batches(session, judges.pixels)[0])
            compared = Comparer(base, judges.class_starts).compare(embeddings, thresholds, 1)
            labels.append(best_class(compared.matches, compared.scores))
    cosines = (normalize(wanted[0]) * normalize(found[0])).sum(axis=1)
    return PrecisionLoss(
        images=len(pixels),
        agreement=float((labels[0] == labels[1]).mean()),
        cosine=float(cosines.min()),
        judged_by="the classifier's" if judges is None else f"by {len(judges.pixels)} base images",
    )


def _decode_good(images: ImageFiles, files: list[Path]) -> npt.NDArray[np.uint8]:
    pixels, reasons = images.decode(files)
    good = pixels[[not reason for reason in reasons]]
    if len(good) < MIN_IMAGES:
        raise PrecisionError(
            f"fewer bits need {MIN_IMAGES} images that decode, for the calibration and for the check each, and of "
            f"{len(files)} chosen for one of them {len(good)} do. The first that does not: "
            f"{next(f'{file}: {reason}' for file, reason in zip(files, reasons, strict=True) if reason)}."
        )
    return good


def _judges(base: BaseImages, held_out: set[Path], images: ImageFiles, threshold: float) -> Judges | None:
    """Choose base images, some of every class, that give the held-out ones their labels."""
    chosen = [
        (index, file)
        for index, files in enumerate(base.classes.values())
        for file in spread([file for file in files if file not in held_out], -(-JUDGES // len(base.classes)))
    ]
    if not chosen:
        return None
    pixels, reasons = images.decode([file for _, file in chosen])
    good = [not reason for reason in reasons]
    classes = [index for (index, _), decodes in zip(chosen, good, strict=True) if decodes]
    if not classes:
        return None
    return Judges(pixels=pixels[good], class_starts=np.unique(classes, return_index=True)[1], threshold=threshold)
