"""The network of S = 64 and images of 256 x 256, which leave most of a request's time to everything else."""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.images import write_small_images
from bench.resources import write_resources
from bench.setting import Setting

SMALL_SIDE = 64
BASE_IMAGES, CLASSES = 21, ("even", "odd")


def small_images(setting: Setting) -> list[Path]:
    """Return the small query images, which are written unless they exist."""
    return write_small_images(setting.folder / "small-images", setting.queries)


def export_small(setting: Setting, *, mode: str = "clustering") -> Path:
    """Export a repository of the small network, once; return its folder.

    Raises:
        BenchError: The export failed.
    """
    resources = write_resources(setting.folder / "small-resources", small_images(setting), SMALL_SIDE)
    base_data = _write_base_images(setting) if mode == "clustering" else None
    return setting.export(f"small-{mode}", "--image_size", str(SMALL_SIDE), resources=resources, base_data=base_data)


def _write_base_images(setting: Setting) -> str:
    name = "small-base"
    for number, file in enumerate(sorted((setting.folder / "made").glob("*.jpg"))[:BASE_IMAGES]):
        target = setting.folder / name / CLASSES[number % len(CLASSES)]
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return name
