"""What an export was made of, so that the same one need not be made again, and foreign embeddings are noticed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inference_client.version import __version__
from inference_export.base_set.base_images import BaseImages
from inference_export.export_options import ExportOptions
from inference_export.graph.calibration import CalibrationSet
from inference_export.regular_files import hash_file
from inference_export.repository.configs import MODELS
from inference_export.resources.checkpoint_file import MAX_CHECKPOINT_BYTES
from inference_export.resources.checkpoints import LOGS
from inference_export.resources.labels import LABELS
from inference_export.resources.unpickling import MAX_PICKLE_BYTES
from inference_export.template import MAX_SOURCE_BYTES, template_files

PROVENANCE_FILE = "provenance.json"


def describe(
    options: ExportOptions,
    *,
    base: BaseImages | None,
    calibration: CalibrationSet | None,
    checkpoint: Path,
    candidates: list[str],
    network_source: str | None,
    sha256: Callable[[Path, int], str],
) -> dict[str, Any]:
    """Fingerprint everything that an export's result depends on.

    Args:
        options: What was asked for.
        base: The base set as found, before unreadable images are left out.
        calibration: The images that the network in fewer bits depends on; None: there are none.
        checkpoint: The checkpoint that was chosen.
        candidates: Names of the files that it was chosen from, sorted.
        network_source: Fingerprint of the user's own network; None: the built-in one.
        sha256: Gives the hash of a file, for an export of the very bytes that it read; told how long a file may be.

    Returns:
        JSON-ready values by what they describe; equal ones mean an equal export.
    """
    # Where and how, not what.
    hidden = (
        "resources", "base_data", "mode", "model_repository", "batch_size", "network", "calibration", "accept_loss",
        "cache",
    )  # fmt: skip

    def hash_images(folder: Path, files: Iterable[Path]) -> str:
        lines = (f"{file.relative_to(folder)}/{sha256(file, options.max_image_bytes)}\n" for file in files)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    calibrated = [] if calibration is None else [*calibration.calibration, *calibration.held_out]
    return {
        "software": [__version__, hash_files(file for model in MODELS for file in template_files(model).values())],
        "options": {name: value for name, value in asdict(options).items() if name not in hidden},
        "network": options.network and {"name": options.network, "source": network_source},
        "checkpoint": checkpoint.name,
        "resources": {
            "labels": sha256(options.resources / LABELS, MAX_PICKLE_BYTES),
            "logs": sha256(options.resources / LOGS, MAX_PICKLE_BYTES) if len(candidates) > 1 else None,
            "checkpoints": candidates,
            "chosen": sha256(checkpoint, MAX_CHECKPOINT_BYTES),
        },
        "base data": None if base is None else hash_images(base.folder, base.files),
        "calibration": hash_images(options.calibration, calibrated) if options.calibration and calibrated else None,
    }


def hash_files(paths: Iterable[Path]) -> str:
    """SHA-256 of several source files' contents, in the order of their paths."""
    return hashlib.sha256("".join(hash_file(path, MAX_SOURCE_BYTES) for path in sorted(paths)).encode()).hexdigest()
