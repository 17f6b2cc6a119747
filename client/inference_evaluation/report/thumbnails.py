"""Thumbnails as data within the page."""

import base64
import io
import warnings
from pathlib import Path, PurePosixPath

from PIL import Image

SIDE_PX = 144
WEBP_QUALITY = 80
MAX_PIXELS = 100_000_000
BASE_IMAGE_PARTS = 2


def make_thumbnail(file: Path) -> str | None:
    """Make a thumbnail of an image file, oriented as the server sees it: without the EXIF orientation.

    Returns:
        A ``data:`` URI of a WebP file without metadata; None if the image can't be decoded or is too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    return None
                image.draft("RGB", (2 * SIDE_PX, 2 * SIDE_PX))
                grey = image.convert("I") if image.mode.startswith("I;16") else image
                pixels = (grey.point(lambda value: value / 257) if grey.mode == "I" else grey).convert("RGB")
        pixels.thumbnail((SIDE_PX, SIDE_PX))
        canvas = Image.new("RGB", pixels.size)  # leaves the file's metadata behind
        canvas.paste(pixels)
        encoded = io.BytesIO()
        canvas.save(encoded, format="WEBP", quality=WEBP_QUALITY)
    except Exception:  # Pillow raises almost any type for a file that it can't decode
        return None
    return f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def find_base_image(folder: Path, name: str) -> Path | None:
    """Find a base image by name. The name comes from the server, so it must not lead out of the folder.

    Args:
        folder: The base images, one sub-folder for each class.
        name: ``class/file name``.

    Returns:
        The file; None if there is no such file.
    """
    parts = PurePosixPath(name).parts
    if len(parts) != BASE_IMAGE_PARTS or ".." in parts or parts[0] == "/" or "\0" in name:
        return None
    file = folder.joinpath(*parts)
    return file if file.is_file() else None
