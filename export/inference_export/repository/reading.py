"""What a repository holds, and whether it belongs together."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_export.base_set.base_images import find_base_images
from inference_export.errors import ExportError, RepositoryError
from inference_export.export_options import ExportOptions
from inference_export.graph.calibration import choose_images
from inference_export.network.source import fingerprint
from inference_export.regular_files import hash_file, hash_if_readable
from inference_export.repository.provenance import PROVENANCE_FILE, describe
from inference_export.repository.version_files import damaged, read_provenance, read_settings
from inference_export.repository.versions import exported_version
from inference_export.resources.checkpoints import MODELS, list_checkpoints
from inference_export.template import MAX_SOURCE_BYTES

_SHORT_HASH = 6
_MAX_GRAPH_BYTES = 2**31  # as ONNX's own form has it


@dataclass(frozen=True, kw_only=True)
class Export:
    """A version that lies in a repository.

    Args:
        version: Its number.
        settings: Mode, classes, threshold, unknown label and K, as ``cluster_head`` reads them.
        provenance: What it was made of.
    """

    version: int
    settings: dict[str, Any]
    provenance: dict[str, Any]


def read_export(repository: Path, version: int | None = None) -> Export | None:
    """Read a version, and check that its parts belong together.

    Args:
        repository: The model repository.
        version: A complete version; None: the one that the ensemble answers with.

    Returns:
        The export; None where none lies.

    Raises:
        RepositoryError: Its files are broken, or its base embeddings come from another graph or preprocessing.
    """
    if version is None:
        version = exported_version(repository)
    if version is None:
        return None
    head = repository / "cluster_head" / str(version)
    settings = read_settings(head / "settings.json")
    provenance = read_provenance(head / PROVENANCE_FILE)
    for what, was, file, max_bytes in (
        ("classifier (graph", provenance["graph"], f"classifier/{version}/model.onnx", _MAX_GRAPH_BYTES),
        (
            "preprocessing (file",
            provenance["preprocessing"],
            f"preprocess/{version}/preprocessing.py",
            MAX_SOURCE_BYTES,
        ),
    ):
        try:
            found = hash_file(repository / file, max_bytes)
        except OSError as error:
            raise damaged(repository / file, f"it can't be read, {error.strerror}") from error
        if was != found:
            raise RepositoryError(
                f"{head}: base embeddings were computed with another {what} {was[:_SHORT_HASH]}, serving "
                f"{found[:_SHORT_HASH]}).\n"
                f"  Run the export again with -data, or put the version back that they came from.",
                head,
            )
    return Export(version=version, settings=settings, provenance=provenance)


def what_changed(export: Export, options: ExportOptions) -> list[str]:
    """Name what an export that lies in a repository does not share with one that is asked for.

    Args:
        export: What lies there.
        options: What is asked for.

    Returns:
        Any of ``software``, ``options``, ``network``, ``resources``, ``base data`` and ``calibration``; empty: it would
        be exported the same again.
    """
    checkpoint = options.resources / MODELS / str(export.provenance.get("checkpoint"))
    try:
        base = find_base_images(options.base_data)
        wanted = describe(
            options,
            base=base,
            calibration=choose_images(options.calibration, base, options.precision),
            checkpoint=checkpoint,
            candidates=[file.name for file in list_checkpoints(options.resources)],
            network_source=None if options.network is None else fingerprint(options.network),
            sha256=hash_if_readable,
        )
    except ExportError:  # the export will say what is wrong
        return ["resources, base data or network"]
    return [key for key, value in wanted.items() if export.provenance.get(key) != json.loads(json.dumps(value))]
