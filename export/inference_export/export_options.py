"""What an export is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MODES = ("classification", "clustering")
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What an export is asked for.

    Args:
        resources: Folder of the trained resources.
        base_data: Folder of the base data; None: classification mode.
        mode: ``classification`` or ``clustering``, where that was said; None: by the base data, and as it was before.
        model_repository: Folder to write.
        sim_thres: Lowest similarity that is a match, -1 to 1.
        batch_size: Images in a run of the graph while base embeddings are computed.
        network: ``package.module:factory`` that makes the network; None: the built-in one.
        image_size: Side S of the network's input in pixels; None: the network's own.
        max_batch_size: Most images in a request to the server.
        unknown_label: Label of a query without any match; None: the nearest class.
        neighbors: Number K of most similar base images in an answer.
        skip_unreadable: Leave out base images that do not decode, instead of failing.
        device: ``cpu`` or ``gpu``: where the server runs the network.
        cpus: Cores of the machine that serves; 0: all that it has.
        decode: ``exact`` or ``reduced``: how large JPEGs are decoded.
        max_image_bytes: Longest file that is decoded.
        max_image_pixels: Most pixels of an image that is decoded.
        max_jpeg_scans: Most scans of a JPEG that is decoded.
        max_image_seconds: Most processor time, in seconds, to decode an image.
        precision: ``fp32``, ``fp16`` or ``int8``: numbers that the network computes with.
        calibration: Folder of images to calibrate fewer bits with and to check them on; None: the base data.
        accept_loss: Export in fewer bits whatever that costs.
        cache: Folder that keeps embeddings.
    """

    resources: Path
    base_data: Path | None
    mode: str | None
    model_repository: Path
    sim_thres: float
    batch_size: int
    network: str | None
    image_size: int | None
    max_batch_size: int
    unknown_label: str | None
    neighbors: int
    skip_unreadable: bool
    device: str
    cpus: int
    decode: str
    max_image_bytes: int
    max_image_pixels: int
    max_jpeg_scans: int
    max_image_seconds: float
    precision: str
    calibration: Path | None
    accept_loss: bool
    cache: Path
