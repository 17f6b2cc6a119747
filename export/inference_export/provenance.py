"""What an export was made of, so that the same one need not be made again, and foreign embeddings are noticed."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from inference_client.version import __version__

from .base_set import BaseSet
from .resources import LABELS, LOGS, list_checkpoints
from .template import template_directory

PROVENANCE_FILE = "provenance.json"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What an export is asked for.

    Args:
        resources: Folder of the trained resources.
        base_data: Folder of the base data; None or empty: classification mode.
        model_repository: Folder to write.
        sim_thres: Lowest similarity that is a match, -1 to 1.
        batch_size: Images in a run of the graph while base embeddings are computed.
        image_size: Side S of the network's input in pixels.
        max_batch_size: Most images in a request to the server.
        unknown_label: Label of a query without any match; None: the nearest class.
        neighbors: Number K of most similar base images in an answer.
        skip_unreadable: Leave out base images that do not decode, instead of failing.
        device: ``cpu`` or ``gpu``: where the server runs the network.
    """

    resources: Path
    base_data: Path | None
    model_repository: Path
    sim_thres: float
    batch_size: int
    image_size: int
    max_batch_size: int
    unknown_label: str | None
    neighbors: int
    skip_unreadable: bool
    device: str


def describe(options: ExportOptions, base: BaseSet | None, checkpoint: Path) -> dict[str, Any]:
    """Fingerprint everything that an export's result depends on.

    Args:
        options: What was asked for.
        base: The base set as found, before unreadable images are left out.
        checkpoint: The checkpoint that was chosen.

    Returns:
        JSON-ready values by what they describe; equal ones mean an equal export.
    """
    hidden = ("resources", "base_data", "model_repository", "batch_size")  # where and how, not what
    return {
        "software": [__version__, hash_files(template_directory().glob("*/1/*.py"))],
        "options": {name: value for name, value in asdict(options).items() if name not in hidden},
        "checkpoint": checkpoint.name,
        "resources": {
            "labels": hash_file(options.resources / LABELS),
            "logs": hash_file(options.resources / LOGS) if (options.resources / LOGS).is_file() else None,
            "checkpoints": [file.name for file in list_checkpoints(options.resources)],
            "chosen": hash_file(checkpoint),
        },
        "base data": None if base is None else _hash_base_set(base),
    }


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(paths: Any) -> str:
    """SHA-256 of several files' contents, in the order of their paths."""
    return hashlib.sha256("".join(hash_file(path) for path in sorted(paths)).encode()).hexdigest()


def _hash_base_set(base: BaseSet) -> str:
    digest = hashlib.sha256()
    for name, file in zip(base.names, base.files, strict=True):
        try:
            content = hash_file(file)
        except OSError:
            content = "unreadable"
        digest.update(f"{name}/{content}\n".encode())
    return digest.hexdigest()
