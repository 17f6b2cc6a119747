"""The small setting: a network that is so fast that everything else becomes visible."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

from PIL import Image

from bench.resources import write_resources
from bench.setting import Setting

SIZE = 64  # S, the side of the network's images
SIDES = (256, 256)  # of the JPEG files that are sent
QUALITY = 90
BASE_IMAGES, CLASSES = 21, ("even", "odd")


def write_small_images(setting: Setting) -> Path:
    """Write the query images with ``SIDES`` and return their folder."""
    folder = setting.folder / "small-images"
    folder.mkdir(exist_ok=True)
    for file in setting.queries:
        buffer = io.BytesIO()
        Image.open(file).resize(SIDES).save(buffer, "JPEG", quality=QUALITY)
        (folder / file.name).write_bytes(buffer.getvalue())
    return folder


def _write_base_images(setting: Setting) -> str:
    name = "small-base"
    for number, file in enumerate(sorted((setting.folder / "made").glob("*.jpg"))[:BASE_IMAGES]):
        target = setting.folder / name / CLASSES[number % len(CLASSES)]
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return name


def export_small(setting: Setting, *, mode: str = "clustering") -> Path:
    """Export a repository for S = ``SIZE`` and return its folder."""
    files = sorted(write_small_images(setting).glob("*.jpg"))
    resources = write_resources(setting.folder / "small-resources", files, SIZE)
    base_data = _write_base_images(setting) if mode == "clustering" else None
    return setting.export(f"small-{mode}", "--image_size", str(SIZE), resources=resources, base_data=base_data)
