"""The summary of an export, in values and in words."""

from __future__ import annotations

from dataclasses import dataclass

from inference_export.export_options import ExportOptions
from inference_export.graph.calibration import FLOAT32
from inference_export.graph.parity import Parity
from inference_export.graph.precision import Precision
from inference_export.network.networks import PYTORCH
from inference_export.network.preprocessing import Preprocessing
from inference_export.resources.checkpoints import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The results of an export.

    Attributes:
        version: The version's number in the repository.
        mode: ``classification`` or ``clustering``.
        mode_before: The mode of the version before; None: there was no version.
        checkpoint: The chosen checkpoint.
        options: The export's options.
        embedding_size: Length D of an embedding.
        preprocessing: The preprocessing of the network's images.
        network_classes: The network's C' class names in index order.
        base_images: Class name to number of base images; empty in classification mode.
        parity: The differences between the float32 graph and the network that it was made from.
        precision: The precision of the exported graph.
        notes: Other notes for the user.
    """

    version: int
    mode: str
    mode_before: str | None
    checkpoint: Checkpoint
    options: ExportOptions
    embedding_size: int
    preprocessing: Preprocessing
    network_classes: list[str]
    base_images: dict[str, int]
    parity: Parity
    precision: Precision
    notes: list[str]


def format_summary(summary: Summary) -> str:
    """Return a summary as lines of text."""
    parity, options, size = summary.parity, summary.options, summary.preprocessing.image_size
    network = options.network or ("" if parity.reference == PYTORCH else f"complete, in the {parity.reference}")
    before = "" if summary.mode_before in (None, summary.mode) else f" (before: {summary.mode_before})"
    lines = [
        f"exported          {options.model_repository}, version {summary.version}",
        f"mode              {summary.mode}{before}",
        f"checkpoint        {summary.checkpoint.path} ({summary.checkpoint.reason})",
        *([f"network           {network}, embeddings of {summary.embedding_size}"] if network else []),
        f"image size        {size} x {size}",
        f"preprocessing     {summary.preprocessing}",
        f"{'':18}from {summary.preprocessing.origin}",
        f"network classes   {', '.join(summary.network_classes)}",
        *(
            f"{'base images' if row == 0 else '':18}{name}: {count}"
            for row, (name, count) in enumerate(summary.base_images.items())
        ),
        f"{'ONNX - ' + parity.reference:17} at most {parity.similarity:.1e} in similarities, {parity.probability:.1e} "
        f"in probabilities, on {parity.images} {parity.source}",
        *([] if options.precision == FLOAT32 else [f"precision         {summary.precision}"]),
        f"cores             {options.cpus or 'all cores of the server'}, for decoding and for the network",
        *(f"note              {note}" for note in summary.notes),
    ]
    return "\n".join(lines)
