"""What a version was made of, to tell whether another export would be the same, and where embeddings come from."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from inference_client.version import __version__
from inference_export.base_set.base_images import BaseImages, find_base_images
from inference_export.errors import ExportError
from inference_export.export_options import ExportOptions, base_set_options, recorded_options
from inference_export.graph.calibration import FLOAT32, CalibrationSet, choose_images
from inference_export.network.source import fingerprint
from inference_export.regular_files import hash_file, hash_if_readable
from inference_export.repository.configs import MODELS
from inference_export.repository.version_files import is_count, is_text, read_object, take_entry, write_json
from inference_export.repository.versions import NETWORK_VERSION
from inference_export.resources.checkpoint_file import MAX_CHECKPOINT_BYTES
from inference_export.resources.preprocessing_file import MAX_PREPROCESSING_BYTES, find_preprocessing_file
from inference_export.resources.trained import LOGS, list_checkpoints, locate
from inference_export.resources.trained import MODELS as CHECKPOINTS
from inference_export.resources.unpickling import MAX_PICKLE_BYTES
from inference_export.template import MAX_SOURCE_BYTES, template_files

OPTIONS, BASE_SET_OPTIONS, BASE_DATA = "options", "options of the base set", "base data"
# What a change of the base set can make up for, without exporting the network again.
BASE_SET_CHANGES = frozenset({BASE_SET_OPTIONS, BASE_DATA})
_LINES_AT_A_TIME = 10_000


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What a version was made of: its ``provenance.json``.

    Earlier exports wrote fewer entries. All hashes are SHA-256 in hexadecimal.

    Attributes:
        software: This package's version, and the hash of the template's Python files.
        options: The options that change an export's result.
        network: ``name`` and hash of the ``source`` of the user's own network; None: the built-in one.
        checkpoint: File name of the chosen checkpoint.
        resources: Hashes of the files of ``labels``, ``logs``, the ``chosen`` checkpoint, its external ``data`` and the
            file that describes the ``preprocessing``; and the names of all ``checkpoints``.
        base_data: Hash of the base images, before undecodable ones are left out; None: there are none.
        calibration: Hash of the images from the folder of ``--calibration``; None: no such folder was used.
        precision: ``fp32``, ``fp16`` or ``int8``: what the graph computes with.
        graph: Hash of the version's ONNX graph.
        preprocessing: Hash of the version's preprocessing: code and geometry.
        exported: Time of the export, in ISO 8601.
        network_version: Number of the network that the base set belongs to; None: the one that was exported with it.
    """

    software: list[str]
    options: dict[str, Any]
    network: dict[str, Any] | None
    checkpoint: str | None
    resources: dict[str, Any]
    base_data: str | None
    calibration: str | None
    precision: str
    graph: str
    preprocessing: str
    exported: str | None
    network_version: int | None = None


def write_provenance(file: Path, provenance: Provenance) -> None:
    """Write what a version was made of."""
    write_json(file, {_key(name): value for name, value in asdict(provenance).items()})


def read_provenance(file: Path) -> Provenance:
    """Read what a version was made of.

    Raises:
        RepositoryError: The file can't be read, or no export wrote it.
    """
    take = partial(take_entry, file, read_object(file))
    options = take("options", lambda value: isinstance(value, dict) and is_text(value.get("precision", "")), {})
    return Provenance(
        software=take("software", lambda value: isinstance(value, list), []),
        options=options,
        network=take(
            "network", lambda value: value is None or (isinstance(value, dict) and is_text(value.get("name"))), None
        ),
        checkpoint=take("checkpoint", is_text, None),
        resources=take("resources", lambda value: isinstance(value, dict), {}),
        base_data=take("base data", lambda value: value is None or is_text(value), None),
        calibration=take("calibration", lambda value: value is None or is_text(value), None),
        precision=take("precision", is_text, options.get("precision", FLOAT32)),
        graph=take("graph", is_text),
        preprocessing=take("preprocessing", is_text),
        exported=take("exported", is_text, None),
        network_version=take(NETWORK_VERSION, lambda value: value is None or is_count(value), None),
    )


def describe(
    options: ExportOptions,
    *,
    base: BaseImages | None,
    calibration: CalibrationSet | None,
    labels: list[Path],
    checkpoint: Path,
    candidates: list[str],
    data_files: list[Path],
    network_source: str | None,
    sha256: Callable[[Path, int], str],
    precision: str,
    graph: str,
    described: Path | None,
    preprocessing: str,
    exported: str | None,
) -> Provenance:
    """Describe what an export is made of.

    Args:
        options: The options of the export.
        base: The base images, before undecodable ones are left out; None: there are none.
        calibration: The images that calibrate and check int8 and fp16; None: fp32.
        labels: The files that name the classes.
        checkpoint: The chosen checkpoint.
        candidates: File names of all checkpoints, sorted.
        data_files: Files of the checkpoint's external data.
        network_source: Fingerprint of the user's own network; None: the built-in one.
        sha256: Returns the hash of a file, given the file and its greatest length in bytes.
        precision: The precision of the graph: ``fp32``, ``fp16`` or ``int8``.
        graph: Hash of the ONNX graph.
        described: The file that describes the preprocessing; None: there is none.
        preprocessing: Hash of the preprocessing, from ``hash_preprocessing``.
        exported: Time of the export.

    Returns:
        The provenance. Exports whose provenance differs only in the time are equal.
    """

    def hash_image(file: Path) -> str:
        return sha256(file, options.max_image_bytes)

    calibrated = [] if calibration is None else [*calibration.calibration, *calibration.held_out]
    return Provenance(
        software=software(),
        options=recorded_options(options),
        network=None if options.network is None else {"name": options.network, "source": network_source},
        checkpoint=checkpoint.name,
        resources={
            "labels": {file.name: sha256(file, MAX_PICKLE_BYTES) for file in labels},
            "logs": sha256(options.resources / LOGS, MAX_PICKLE_BYTES) if len(candidates) > 1 else None,
            "checkpoints": candidates,
            "chosen": sha256(checkpoint, MAX_CHECKPOINT_BYTES),
            "data": {file.name: sha256(file, MAX_CHECKPOINT_BYTES) for file in data_files},
            "preprocessing": sha256(described, MAX_PREPROCESSING_BYTES) if described else None,
        },
        base_data=None if base is None else hash_images(base.names, map(hash_image, base.files)),
        calibration=(
            hash_images(
                (str(file.relative_to(options.calibration)) for file in calibrated), map(hash_image, calibrated)
            )
            if options.calibration and calibrated
            else None
        ),
        precision=precision,
        graph=graph,
        preprocessing=preprocessing,
        exported=exported,
    )


def software() -> list[str]:
    """Return this package's version, and the hash of the template's Python files."""
    sources = sorted(file for model in MODELS for file in template_files(model).values())
    hashes = [hash_file(file, MAX_SOURCE_BYTES) for file in sources]
    return [__version__, hashlib.sha256("".join(hashes).encode()).hexdigest()]


def hash_images(names: Iterable[str], hashes: Iterable[str]) -> str:
    """Hash the names of images and the hashes of their contents."""
    digest = hashlib.sha256()
    lines = (f"{name}/{content}\n" for name, content in zip(names, hashes, strict=True))
    while some := "".join(islice(lines, _LINES_AT_A_TIME)):
        digest.update(some.encode())
    return digest.hexdigest()


def what_changed(provenance: Provenance, options: ExportOptions) -> list[str]:
    """Name what differs between a version and what an export would make now.

    Args:
        provenance: What the version was made of.
        options: The options of the export.

    Returns:
        Any of ``software``, ``options``, ``network``, ``checkpoint``, ``resources``, ``calibration`` and the two of
        ``BASE_SET_CHANGES``; empty: the export would be the same again.
    """
    try:
        base = None if options.base_data is None else find_base_images(options.base_data)
        resources = locate(options.resources, options.checkpoint)
        checkpoint = resources.named or resources.folder / CHECKPOINTS / str(provenance.checkpoint)
        data = provenance.resources.get("data", {})
        wanted = describe(
            options,
            base=base,
            calibration=choose_images(options.calibration, base, options.precision),
            labels=resources.labels_files(),
            checkpoint=checkpoint,
            candidates=(
                [file.name for file in list_checkpoints(resources.folder)]
                if resources.named is None
                else [checkpoint.name]
            ),
            data_files=[checkpoint.parent / name for name in data] if isinstance(data, dict) else [],
            network_source=None if options.network is None else fingerprint(options.network),
            sha256=hash_if_readable,
            precision=provenance.precision,
            graph=provenance.graph,
            described=find_preprocessing_file(checkpoint, resources.folder, options.preprocessing),
            preprocessing=provenance.preprocessing,
            exported=provenance.exported,
        )
    except ExportError:  # the export will say what is wrong
        return ["resources, base data or network"]
    before, after = (
        asdict(replace(each, options={}, exported=None, network_version=None)) for each in (provenance, wanted)
    )
    changed = [_key(name) for name, value in after.items() if value != before[name]]
    old, new = provenance.options, wanted.options
    differing = {name for name in {*old, *new} if old.get(name) != new.get(name)}
    of_base_set = base_set_options()
    return [
        *changed,
        *([OPTIONS] if differing - of_base_set else []),
        *([BASE_SET_OPTIONS] if differing & of_base_set else []),
    ]


def _key(name: str) -> str:
    return name.replace("_", " ")
