"""An export, from trained resources and base data to a version in a model repository."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from inference_export.base_set.base_images import check_unknown_label, find_base_images
from inference_export.base_set.building import build_base_set, check_base_images
from inference_export.base_set.decoding import Geometry, Limits, hash_preprocessing
from inference_export.base_set.image_files import open_image_files
from inference_export.base_set.known_images import nothing_known, record_files
from inference_export.errors import ChangedError, PrecisionError, ResourcesError
from inference_export.export_options import ExportOptions
from inference_export.graph.calibration import choose_images
from inference_export.graph.onnx_export import export_network
from inference_export.graph.parity import compare_with_network
from inference_export.graph.precision import set_precision
from inference_export.network.asking import read_preprocessing
from inference_export.network.loading import load_network
from inference_export.network.networks import Network
from inference_export.network.preprocessing import Preprocessing
from inference_export.network.probing import measure_embedding
from inference_export.network.source import fingerprint
from inference_export.onnx_session import open_graph
from inference_export.progress import Progress, show_nothing
from inference_export.regular_files import FileReader, hash_file
from inference_export.repository.configs import RepositoryShape, Version
from inference_export.repository.destination import check_destination, resolve_destination
from inference_export.repository.modes import mode_change, read_mode, require_mode
from inference_export.repository.provenance import describe, write_provenance
from inference_export.repository.publishing import is_replaced, previous_path, publish, unremoved
from inference_export.repository.staging import staging
from inference_export.repository.version_files import SETTINGS_FILE, Settings, write_json, write_settings
from inference_export.repository.versions import PROVENANCE_FILE, exported_version
from inference_export.resources.checkpoints import select_checkpoint
from inference_export.resources.labels import read_labels
from inference_export.resources.preprocessing_file import find_preprocessing_file, read_preprocessing_file
from inference_export.resources.trained import LABELS, TrainedResources, locate
from inference_export.summary import Summary

_ANY_LENGTH = sys.maxsize  # for files that this export has written


def export_repository(options: ExportOptions, progress: Progress = show_nothing) -> Summary:
    """Build a model repository, or add a version to it.

    Args:
        options: What to export, and where to.
        progress: Called with a label and a total at each long step. Returns a context manager, whose value is a
            function to call with the number of steps done since the last call. By default, no progress is shown.

    Returns:
        A summary of the export.

    Raises:
        ExportError: An input is missing, malformed or unsafe, or the result fails verification. Nothing was replaced.
        OSError: The disk is full, or a file can't be written. Nothing was replaced.
    """
    reader = FileReader()
    resources = locate(options.resources, options.checkpoint)
    _refuse_swapped_folders(resources, options)
    base = None if options.base_data is None else find_base_images(options.base_data)
    mode = "classification" if base is None else "clustering"
    repository = resolve_destination(options.model_repository)
    mode_before = read_mode(repository)
    require_mode(options, mode, mode_before)
    if base is not None:
        check_unknown_label(list(base.classes), options.unknown_label, base.folder)
    _check_precision(options)
    calibration = choose_images(options.calibration, base, options.precision)
    labels = read_labels(resources, reader)
    checkpoint = select_checkpoint(resources, mode, reader)
    network, source = _load_network(options, checkpoint.path, len(labels), reader)
    preprocessing, described = _read_preprocessing(network, options, resources, checkpoint.path, reader)
    shape = RepositoryShape(
        image_size=preprocessing.image_size,
        embedding_size=measure_embedding(network, preprocessing, len(labels)),
        network_classes=len(labels),
        max_batch_size=options.max_batch_size,
        device=options.device,
        cpus=options.cpus,
    )
    check_destination(repository, shape)
    limits = Limits(
        file_bytes=options.max_image_bytes,
        pixels=options.max_image_pixels,
        scans=options.max_jpeg_scans,
        seconds=options.max_image_seconds,
    )

    with (
        open_image_files(
            reader,
            image_size=shape.image_size,
            decode=options.decode,
            limits=limits,
            geometry=Geometry(**preprocessing.geometry),
        ) as images,
        staging(repository) as staged,
    ):
        all_base_images = base
        known = None if base is None else nothing_known(base)
        if base is not None and known is not None:
            base, known = check_base_images(
                base, known, images, cache=options.cache, skip_undecodable=options.skip_unreadable, progress=progress
            )
        graph = staged / "classifier" / "model.onnx"
        with progress("exporting the network", 1) as advance:
            export_network(network, preprocessing, graph)
            advance(1)
        parity = compare_with_network(open_graph(graph), network, preprocessing, base=base, images=images)
        precision = set_precision(
            options=options,
            network=network,
            preprocessing=preprocessing,
            graph=graph,
            base=base,
            chosen=calibration,
            images=images,
            progress=progress,
        )
        graph_hash = hash_file(graph, _ANY_LENGTH)
        if base is not None and known is not None:
            base = build_base_set(
                base,
                known,
                images,
                embedding_size=shape.embedding_size,
                load_graph=partial(open_graph, graph),
                graph_hash=graph_hash,
                cache=options.cache,
                folder=staged / "cluster_head",
                batch_size=options.batch_size,
                progress=progress,
            )
        write_json(
            staged / "preprocess" / SETTINGS_FILE,
            {"decode": options.decode, "limits": limits._asdict(), "geometry": preprocessing.geometry},
        )
        settings = Settings(
            mode=mode,
            classes=labels if base is None else list(base.classes),
            neighbors=options.neighbors,
            threshold=options.sim_thres,
            unknown_label=options.unknown_label,
        )
        write_settings(staged / "cluster_head" / SETTINGS_FILE, settings)
        provenance = describe(
            options,
            base=all_base_images,
            calibration=calibration,
            labels=resources.labels_files(),
            checkpoint=checkpoint.path,
            candidates=checkpoint.candidates,
            data_files=[] if network.complete is None else network.complete.data_files,
            network_source=source,
            sha256=lambda path, _: reader.sha256(path),
            precision=precision.name,
            graph=graph_hash,
            described=described,
            preprocessing=hash_preprocessing(staged / "preprocess", preprocessing.geometry),
            exported=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_provenance(staged / "cluster_head" / PROVENANCE_FILE, provenance)
        if base is not None and known is not None and provenance.base_data is not None:
            record_files(
                base,
                known,
                reader,
                cache=options.cache,
                decoding=images.decoding,
                base_data=provenance.base_data,
            ).write()
        before = exported_version(repository)
        replaces = before is not None and is_replaced(repository, shape)
        version = publish(staged, repository, shape)

    notes = [
        *network.notes,
        *([] if base is None else base.notes),
        *([change] if (change := mode_change(mode_before, mode)) else []),
        *_notes_on_repository(repository, before, replaces=replaces),
        *unremoved(repository),
        *_notes_on_options(options, mode, preprocessing, network),
    ]
    return Summary(
        version=version.number,
        mode=mode,
        mode_before=mode_before,
        checkpoint=checkpoint,
        options=options,
        embedding_size=shape.embedding_size,
        preprocessing=preprocessing,
        network_classes=labels,
        base_images={} if base is None else {name: len(files) for name, files in base.classes.items()},
        parity=parity,
        precision=precision,
        notes=notes,
    )


def _load_network(
    options: ExportOptions, checkpoint: Path, classes: int, reader: FileReader
) -> tuple[Network, str | None]:
    """Load the network, and fingerprint the source of the user's own network."""
    load = partial(
        load_network,
        checkpoint,
        classes,
        reader,
        options.network,
        key=options.checkpoint_key,
        outputs=options.outputs,
    )
    if options.network is None:
        return load(), None
    source = fingerprint(options.network)
    network = load()
    if fingerprint(options.network) != source:
        raise ChangedError(f"the source of --network {options.network} changed while it was loaded. Export again.")
    return network, source


def _read_preprocessing(
    network: Network, options: ExportOptions, resources: TrainedResources, checkpoint: Path, reader: FileReader
) -> tuple[Preprocessing, Path | None]:
    """Read the preprocessing of the network's images, and name the file that describes it."""
    path = find_preprocessing_file(checkpoint, resources.folder, options.preprocessing)
    file = None
    if path is not None:
        file = read_preprocessing_file(path, reader, is_named=options.preprocessing is not None)
    complete = network.complete
    side = options.image_size or (None if complete is None else complete.side)
    preprocessing = read_preprocessing(network.says_preprocessing, options.network, side, file)
    if complete is not None:
        complete.check(preprocessing)
    return preprocessing, path


def _refuse_swapped_folders(resources: TrainedResources, options: ExportOptions) -> None:
    base_data = options.base_data
    if base_data is not None and any((base_data / name).is_file() for name in LABELS) and not resources.labels_files():
        raise ResourcesError(
            f"-r names {options.resources}, which holds no labels, and -data names {base_data}, which does. -r expects "
            f"the trained resources, and -data the folders of base images. Swap the two.",
            options.resources,
        )


def _check_precision(options: ExportOptions) -> None:
    wanted = {"fp16": "gpu", "int8": "cpu"}.get(options.precision, options.device)
    if wanted != options.device:
        raise PrecisionError(
            f"--precision {options.precision} is for --device {wanted}. On --device {options.device} it is no faster "
            f"than fp32. Leave one of the two options out."
        )


def _notes_on_repository(repository: Path, before: Version | None, *, replaces: bool) -> list[str]:
    notes = []
    if replaces:
        notes.append(f"this repository replaces another, which is kept in {previous_path(repository)}")
    if before is not None:
        how = "restart it" if replaces else "run reload-repository, or restart it,"
        notes.append(f"a running server still serves the version that it has loaded: {how} to serve this one")
    return notes


def _notes_on_options(options: ExportOptions, mode: str, preprocessing: Preprocessing, network: Network) -> list[str]:
    notes = []
    size, own_size = preprocessing.image_size, preprocessing.own_image_size
    is_fixed = network.complete is not None and network.complete.side is not None
    if options.image_size is None and own_size is None and options.network is None and not is_fixed:
        notes.append("the image size is the default; name the size that the network was trained at with --image_size")
    if own_size is not None and own_size != size:
        notes.append(
            f"--image_size {size} replaces the network's own {own_size}; leave it out unless the network was trained "
            f"at {size}"
        )
    if mode == "classification" and options.unknown_label is not None:
        notes.append("--unknown_label has no effect in classification mode")
    return notes
