"""The network of S = 64 and images of 256 x 256, which leave most of a request's time to everything else."""

from __future__ import annotations

from pathlib import Path

from bench.images import write_small_images
from bench.resources import write_resources
from bench.setting import Setting

SMALL_SIDE = 64


def small_images(setting: Setting) -> list[Path]:
    """Return the small query images, which are written unless they exist."""
    return write_small_images(setting.folder / "small-images", setting.queries)


def export_small(setting: Setting) -> Path:
    """Export a repository of the small network, once; return its folder.

    Raises:
        BenchError: The export failed.
    """
    resources = write_resources(setting.folder / "small-resources", small_images(setting), SMALL_SIDE)
    return setting.export("small", "--image_size", str(SMALL_SIDE), resources=resources)
