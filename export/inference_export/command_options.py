"""The options that describe an export, for every command that may export."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from inference_export.base_set.decoding import DEFAULT_LIMITS, EXACT, REDUCED
from inference_export.base_set.embedding_cache import default_cache_folder
from inference_export.export_options import MODES, PRECISIONS
from inference_export.network.preprocessing import DEFAULT_IMAGE_SIZE, IMAGE_SIZES
from inference_export.network.source import NETWORK_NAME
from inference_export.repository.configs import ALL_CORES


class FiniteRange(click.FloatRange):
    """A float range that also refuses ``nan``, which click's lets through."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert to float within the range, or fail as wrong usage."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is no number.", param, ctx)
        return number


def _printable(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not (value.strip() and value.isprintable()):
        raise click.BadParameter(f"{value!r} is no label: it must be printable text, and not empty.")
    return value


def _network_name(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not NETWORK_NAME.fullmatch(value):
        raise click.BadParameter(
            f"{value!r} is not of the form package.module:factory, as in my_networks:make_network."
        )
    return value


FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def resources_option(**attributes: Any) -> Callable[[Any], Any]:
    """Give a command ``-r/--resources``."""
    return click.option(
        "-r",
        "--resources",
        type=FOLDER,
        metavar="DIR",
        help="Trained resources: labels, models/ and logs/logs, as the trainer wrote them.",
        **attributes,
    )


def base_data_option(**attributes: Any) -> Callable[[Any], Any]:
    """Give a command ``-data/--base_data``."""
    return click.option(
        "-data",
        "--base_data",
        type=FOLDER,
        metavar="DIR",
        help="Base data: a folder for each class, with its reference images inside. With it the server answers in "
        "clustering mode, without it in classification mode. A folder that is named and empty is an error.",
        **attributes,
    )


def export_options(command: Any) -> Any:
    """Give a command the options of an export beside ``-r`` and ``-data``."""
    options = (
        click.option(
            "--mode",
            type=click.Choice(MODES),
            show_default="as the base data say, and as the repository has answered before",
            help="Needed where an export changes the mode of a repository, so that base data that have gone missing "
            "never change it.",
        ),
        click.option(
            "-thres",
            "--sim_thres",
            type=FiniteRange(-1, 1),
            default=0.75,
            show_default=True,
            help="Smallest cosine similarity at which a base image counts as a match. Clustering mode only; a request "
            "can override it.",
        ),
        click.option(
            "-btch",
            "--batch_size",
            type=click.IntRange(1, 1024),
            default=32,
            show_default=True,
            help="Base images embedded at a time during the export; takes memory, changes no result.",
        ),
        click.option(
            "--model_repository",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            default="model_repository",
            show_default=True,
            help="The model repository to write.",
        ),
        click.option(
            "--network",
            metavar="PACKAGE.MODULE:FACTORY",
            callback=_network_name,
            show_default="ResNet-50 with two heads",
            help="A network of your own: a function or class of a module that Python can import from the current "
            "folder. Called with the number of classes, it gives a torch.nn.Module that returns (embedding, logits). "
            "The export runs the module's code.",
        ),
        click.option(
            "--image_size",
            type=click.IntRange(*IMAGE_SIZES),
            show_default=f"the network's own, {DEFAULT_IMAGE_SIZE} where it names none",
            help="Side in pixels to which images are resized: the one that the network was trained with.",
        ),
        click.option(
            "--max_batch_size",
            type=click.IntRange(1, 1024),
            default=32,
            show_default=True,
            help="Most images in one request to the server, and in one run of the network.",
        ),
        click.option(
            "--unknown_label",
            metavar="TEXT",
            callback=_printable,
            help="Label of a query that no base image matches. Clustering mode only; without it such a query gets the "
            "class of the most similar base image.",
        ),
        click.option(
            "--neighbors",
            type=click.IntRange(1, 1000),
            default=5,
            show_default=True,
            help="Most similar base images that an answer names. Clustering mode only.",
        ),
        click.option(
            "--skip_unreadable",
            is_flag=True,
            help="Leave out base images that do not decode, instead of failing.",
        ),
        click.option(
            "--device",
            type=click.Choice(["cpu", "gpu"]),
            default="cpu",
            show_default=True,
            help="Where the server runs the network.",
        ),
        click.option(
            "--cpus",
            type=click.IntRange(0, 1024),
            default=ALL_CORES,
            show_default=True,
            help="Cores that the server may use; 0: all that it finds when it starts. Give the number where a "
            "container is limited to less than its machine has.",
        ),
        click.option(
            "--decode",
            type=click.Choice([EXACT, REDUCED]),
            default=EXACT,
            show_default=True,
            help="reduced: decode JPEGs with both sides at least four times the image size at half of them or less. "
            "About 1.7 times as fast on photographs of many megapixels, and within 4 of 255 levels there; on patterns "
            "as fine as a pixel there is no bound.",
        ),
        click.option(
            "--max_image_bytes",
            type=click.IntRange(1, 2**30),
            default=DEFAULT_LIMITS.file_bytes,
            show_default=True,
            help="Longest file that is decoded. This limit and the next three hold for base images too.",
        ),
        click.option(
            "--max_image_pixels",
            type=click.IntRange(1, 10**9),
            default=DEFAULT_LIMITS.pixels,
            show_default=True,
            help="Most pixels, width times height, of an image that is decoded. Decoding may take 7 bytes of memory "
            "for each of them, and 50 MB; an image whose format needs more is refused. The default admits photographs "
            "of 50 megapixels.",
        ),
        click.option(
            "--max_jpeg_scans",
            type=click.IntRange(1, 10_000),
            default=DEFAULT_LIMITS.scans,
            show_default=True,
            help="Most scans of a JPEG that is decoded. Progressive ones have about 10; a file of a few kilobytes with "
            "hundreds of them takes seconds.",
        ),
        click.option(
            "--max_image_seconds",
            type=FiniteRange(0.1, 600),
            default=DEFAULT_LIMITS.seconds,
            show_default=True,
            help="Most processor time to decode an image, in seconds; the images of a request may take 2.5 times as "
            "long together. A photograph of 50 megapixels takes about 1 s. Raise it for a server with slow cores.",
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default="fp32",
            show_default=True,
            help="int8: 1.6 to 2.9 times as fast on a CPU, by the processor. fp16: for GPUs. Either is checked against "
            "fp32, on images that took no part in the calibration.",
        ),
        click.option(
            "--calibration",
            type=FOLDER,
            metavar="DIR",
            show_default="the base data",
            help="Images like those that will be asked about, at any depth: half of them calibrate int8, the others "
            "check it. Needed for int8 and fp16 in classification mode.",
        ),
        click.option(
            "--accept_loss",
            is_flag=True,
            help="Export int8 or fp16 even if labels or embeddings differ from fp32's by more than is sound.",
        ),
        click.option(
            "--cache",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            default=default_cache_folder,
            show_default="classify-triton in your cache folder",
            help="Folder that keeps computed embeddings, so that a grown base set, or an interrupted export, computes "
            "only what is new.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
