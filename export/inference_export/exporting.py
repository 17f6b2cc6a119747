"""An export from beginning to end: trained resources and base data in, a served version out."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .base_set import BaseSet, find_base_set, require_readable
from .configs import RepositoryShape
from .embeddings import decode_files, embed_images
from .errors import BaseDataError
from .graph import Parity, compare_with_pytorch, export_graph, open_graph
from .provenance import PROVENANCE_FILE, ExportOptions, describe, hash_file
from .repository import check_destination, publish, staging
from .resources import Checkpoint, load_network, read_labels, select_checkpoint

PARITY_IMAGES = 8

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What an export did.

    Args:
        version: The number it has in the repository.
        mode: ``classification`` or ``clustering``.
        checkpoint: The chosen checkpoint.
        network_classes: The network's C' class names in index order.
        base_images: Class name to its number of base images; empty in classification mode.
        parity: ONNX against PyTorch.
        parity_images: What the parity was measured on, in words.
        notes: What was left out or not used.
    """

    version: int
    mode: str
    checkpoint: Checkpoint
    network_classes: list[str]
    base_images: dict[str, int]
    parity: Parity
    parity_images: str
    notes: list[str]


def export_repository(options: ExportOptions, progress: Progress) -> Summary:
    """Build or extend a model repository.

    Args:
        options: What to export, and where to.
        progress: Given a label and a total, shows how far the embedding of the base images is.

    Returns:
        What was done.

    Raises:
        ExportError: Anything is missing, malformed or unsafe, or the result does not verify; nothing was replaced.
    """
    from .network import EMBEDDING_SIZE, ServedNetwork

    base = find_base_set(options.base_data)
    mode = "classification" if base is None else "clustering"
    _check_unknown_label(options, base)
    labels = read_labels(options.resources)
    checkpoint = select_checkpoint(options.resources, mode)
    shape = RepositoryShape(
        image_size=options.image_size,
        embedding_size=EMBEDDING_SIZE,
        network_classes=len(labels),
        max_batch_size=options.max_batch_size,
        device=options.device,
    )
    repository = options.model_repository.resolve()
    check_destination(repository, shape)
    served = ServedNetwork(load_network(checkpoint.path, len(labels))).eval()
    provenance = describe(options, base, checkpoint.path)

    with staging(repository) as staged:
        graph = staged / "classifier" / "model.onnx"
        export_graph(served, options.image_size, graph)
        session = open_graph(graph)
        pixels, parity_images = _parity_images(base, options.image_size)
        parity = compare_with_pytorch(session, served, pixels)
        provenance |= {
            "graph": hash_file(graph),
            "preprocessing": hash_file(staged / "preprocess" / "preprocessing.py"),
        }
        settings = {"mode": mode, "classes": labels, "neighbors": options.neighbors}
        if base is not None:
            with progress("embedding base images", len(base.files)) as advance:
                embeddings, unreadable = embed_images(
                    session,
                    base.files,
                    image_size=options.image_size,
                    batch_size=options.batch_size,
                    skip_unreadable=options.skip_unreadable,
                    advance=advance,
                )
            base = require_readable(base, unreadable, skip=options.skip_unreadable)
            settings |= {
                "classes": list(base.classes),
                "threshold": options.sim_thres,
                "unknown_label": options.unknown_label,
            }
            _write_base_set(staged / "cluster_head", base, embeddings)
        _write_json(staged / "cluster_head" / "settings.json", settings)
        _write_json(staged / "cluster_head" / PROVENANCE_FILE, provenance)
        version = publish(staged, repository, shape)

    notes = [] if base is None else list(base.notes)
    if base is None and options.unknown_label is not None:
        notes.append("--unknown_label has no effect in classification mode")
    return Summary(
        version=version,
        mode=mode,
        checkpoint=checkpoint,
        network_classes=labels,
        base_images={} if base is None else {name: len(files) for name, files in base.classes.items()},
        parity=parity,
        parity_images=parity_images,
        notes=notes,
    )


def _check_unknown_label(options: ExportOptions, base: BaseSet | None) -> None:
    if base is None:
        return
    if len(base.classes) == 1 and options.unknown_label is None:
        raise BaseDataError(
            f"{base.folder} has one class, {next(iter(base.classes))}, which every query would be labelled. Add "
            f"another class, or name what does not match with --unknown_label.",
            base.folder,
        )
    if options.unknown_label in base.classes:
        raise BaseDataError(f"--unknown_label {options.unknown_label} is also a class of {base.folder}.", base.folder)


def _parity_images(base: BaseSet | None, image_size: int) -> tuple[npt.NDArray[np.uint8], str]:
    if base is not None:
        step = max(1, len(base.files) // PARITY_IMAGES)
        pixels, reasons = decode_files(base.files[::step][:PARITY_IMAGES], image_size)
        good = pixels[[not reason for reason in reasons]]
        if len(good):
            return good, "base images"
    # Without base data there is no image at hand: smooth color gradients of different frequencies stand in.
    axis = np.linspace(0, np.pi, image_size, dtype=np.float32)
    waves = [np.sin(np.add.outer(k * axis, k / 2 * axis)[..., None] + [0, 2, 4]) for k in range(1, PARITY_IMAGES + 1)]
    return np.rint((np.stack(waves) + 1) * 127.5).astype(np.uint8), "generated images"


def _write_base_set(folder: Path, base: BaseSet, embeddings: npt.NDArray[np.float32]) -> None:
    sizes = [len(files) for files in base.classes.values()]
    _write_json(folder / "base_images.json", {"images": base.names, "class_sizes": sizes})
    np.save(folder / "base_embeddings.npy", embeddings)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
