"""Small pictures for the page, as data in it."""

import base64
import io
import warnings
from pathlib import Path, PurePosixPath

from PIL import Image

SIDE_PX = 144
WEBP_QUALITY = 80
MAX_PIXELS = 100_000_000
BASE_IMAGE_PARTS = 2


def thumbnail(file: Path) -> str | None:
    """Make a small picture of an image file, as the server saw it: not turned as its EXIF data may say.

    Returns:
        A ``data:`` URI of a WebP file with pixels only, no EXIF data; None if it can't be made.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    return None
                image.draft("RGB", (2 * SIDE_PX, 2 * SIDE_PX))
                small = image.convert("I") if image.mode.startswith("I;16") else image
                if small.mode == "I":
                    small = small.point(lambda value: value / 257)
                pixels = small.convert("RGB")
        pixels.thumbnail((SIDE_PX, SIDE_PX))
        # On a canvas of its own: what else a file holds stays behind.
        canvas = Image.new("RGB", pixels.size)
        canvas.paste(pixels)
        encoded = io.BytesIO()
        canvas.save(encoded, format="WEBP", quality=WEBP_QUALITY)
    except Exception:  # Pillow raises almost any type for what it can't decode
        return None
    return f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def base_image(folder: Path, name: str) -> Path | None:
    """Find a base image by its name; the server says the name, so it may not lead out of the folder.

    Args:
        folder: The base data, a folder for each class.
        name: ``class/file name``.

    Returns:
        The file; None if there is none.
    """
    parts = PurePosixPath(name).parts
    if len(parts) != BASE_IMAGE_PARTS or ".." in parts or parts[0] == "/" or "\0" in name:
        return None
    file = folder.joinpath(*parts)
    return file if file.is_file() else None
