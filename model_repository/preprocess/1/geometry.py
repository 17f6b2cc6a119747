"""Brings a decoded image to S x S pixels: squashed, cropped or padded, as stored or upright, in color or grey."""

from __future__ import annotations

import math
from typing import NamedTuple

import PIL
from orientation import AS_STORED, TURNS, Turn
from PIL import Image

SQUASH, CROP, PAD = "squash", "crop", "pad"
UPRIGHT = "upright"
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
_RADIUS = {"bilinear": 1, "bicubic": 2, "lanczos": 3}  # pixels that a filter reaches from its center, at scale 1
# Pillow keeps the borders of a part to be resized in 24 bits, too few for a far part of a very long side. So a part
# shorter than this share of its side is cut out first.
_SMALL_SHARE = 0.25
# Pillow resizes in two steps and rounds after each. It takes the width first. From 13.0 on, it takes the height first
# if the image loses more than twice as many rows as columns (python-pillow/Pillow, pull request 9549).
_MAY_TAKE_HEIGHT_FIRST = int(PIL.__version__.partition(".")[0]) >= 13  # noqa: PLR2004 - the version
_PIXEL_BYTES = 4


class Geometry(NamedTuple):
    """What happens to a decoded image. The defaults are the original server's.

    Attributes:
        resize: ``squash``: both sides become ``resize_size``. ``crop``: the shorter side does, and the aspect ratio is
            kept. ``pad``: the longer side does, and the aspect ratio is kept. Then the S x S pixels in the middle are
            taken, with ``pad_color`` where the image has none.
        resize_size: Side in pixels; 0: S.
        pad_color: Red, green and blue, 0 to 255.
        interpolation: One of ``FILTERS``.
        orientation: ``as_stored``, or ``upright``: the image is turned as its Exif data say.
        is_grey: Whether the image is taken in grey, by Pillow's ``convert("L")``.
    """

    resize: str = SQUASH
    resize_size: int = 0
    pad_color: tuple[int, int, int] = (0, 0, 0)
    interpolation: str = "bilinear"
    orientation: str = "as_stored"
    is_grey: bool = False


DEFAULT_GEOMETRY = Geometry()


class _Span(NamedTuple):
    """One direction of an image on its way to S pixels.

    Attributes:
        length: Pixels of the image.
        resized: Pixels that the whole image has after resizing.
        start: First of the resized pixels that are taken.
        taken: Number of resized pixels that are taken, at most S.
    """

    length: int
    resized: int
    start: int
    taken: int

    @property
    def scale(self) -> float:
        return self.length / self.resized

    @property
    def is_whole(self) -> bool:
        return self.taken == self.resized

    def mirrored(self) -> _Span:
        return self._replace(start=self.resized - self.start - self.taken)

    def source(self) -> tuple[float, float]:
        """Return where the taken pixels begin and end in the image."""
        if self.is_whole:
            return 0.0, float(self.length)
        return self.start * self.scale, min((self.start + self.taken) * self.scale, float(self.length))

    def reached(self, interpolation: str) -> tuple[int, int]:
        """Return the pixels of the image that the taken pixels depend on, as first and end."""
        low, high = self.source()
        margin = math.ceil(_RADIUS[interpolation] * max(self.scale, 1.0)) + 1
        return max(0, math.floor(low) - margin), min(self.length, math.ceil(high) + margin)


def resized_sides(sides: tuple[int, int], size: int, geometry: Geometry) -> tuple[int, int]:
    """Return the width and height of the whole image after resizing, before its middle is taken.

    Args:
        sides: Width and height of the image, upright if it is to be turned.
        size: Side S of the result.
        geometry: What happens to the image.

    Source:
        torchvision 0.28, ``_compute_resized_output_size``, for ``crop``; timm 1.0, ``ResizeKeepRatio``, for ``pad``.
    """
    target = geometry.resize_size or size
    width, height = sides
    short, long = min(sides), max(sides)
    if geometry.resize == CROP:
        other = int(target * long / short)
        return (target, other) if width <= height else (other, target)
    if geometry.resize == PAD:
        ratio = long / target
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    return target, target


def stored_sides_to_keep(image: Image.Image, size: int, geometry: Geometry, orientation: int) -> tuple[int, int]:
    """Return the sides, as stored, that ``fit`` resizes an image to."""
    turn = _turn(geometry, orientation)
    width, height = resized_sides(_swap(image.size, turn), size, geometry)
    return (height, width) if turn.swaps_sides else (width, height)


def working_bytes(sides: tuple[int, int], size: int, geometry: Geometry, orientation: int) -> int:
    """Estimate the memory that ``fit`` takes for an image of these sides, without the image and the result."""
    turn = _turn(geometry, orientation)
    if geometry.interpolation == "nearest":
        width, height = resized_sides(_swap(sides, turn), size, geometry)
        turned = sides[0] * sides[1] if turn.method is not None else 0
        return _PIXEL_BYTES * (width * height + turned)
    spans = _spans(_swap(sides, turn), size, geometry)
    reached = [high - low for low, high in (span.reached(geometry.interpolation) for span in spans)]
    is_cut = any(_is_small(span, geometry.interpolation) for span in spans)
    rows = reached[1] if is_cut else spans[1].length  # where the height goes first, less stands between the two steps
    return _PIXEL_BYTES * (spans[0].taken * rows + is_cut * reached[0] * reached[1])


def fit(image: Image.Image, size: int, geometry: Geometry, orientation: int) -> Image.Image:
    """Bring an image to S x S pixels. Pixels are those of resizing the whole image, but for a level of 255 or two.

    Args:
        image: The image in RGB or grey, as stored.
        size: Side S in pixels.
        geometry: What happens to the image.
        orientation: The image's orientation, one of ``TURNS``.

    Returns:
        The image, S x S, in the same mode.
    """
    turn = _turn(geometry, orientation)
    if geometry.interpolation == "nearest":
        image = _fit_nearest(image, size, geometry, turn)
    else:
        image = _fit_smoothly(image, size, geometry, turn)
    if image.size == (size, size):
        return image
    color = geometry.pad_color
    canvas = Image.new(image.mode, (size, size), color[0] if image.mode == "L" else tuple(color))
    canvas.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
    return canvas


def _fit_smoothly(image: Image.Image, size: int, geometry: Geometry, turn: Turn) -> Image.Image:
    """Resize only the part that is taken, and turn the small result: the filters are symmetrical."""
    upright_x, upright_y = _spans(_swap(image.size, turn), size, geometry)
    if turn.mirrors_x:
        upright_x = upright_x.mirrored()
    if turn.mirrors_y:
        upright_y = upright_y.mirrored()
    spans = (upright_y, upright_x) if turn.swaps_sides else (upright_x, upright_y)
    is_plain = not turn.swaps_sides and all(span.is_whole for span in spans)
    is_height_first = _takes_height_first(upright_x, upright_y) != turn.swaps_sides
    (left, right), (top, bottom) = (span.source() for span in spans)
    if any(_is_small(span, geometry.interpolation) for span in spans):
        (first_x, end_x), (first_y, end_y) = (span.reached(geometry.interpolation) for span in spans)
        image = image.crop((first_x, first_y, end_x, end_y))
        left, right, top, bottom = left - first_x, right - first_x, top - first_y, bottom - first_y
    resampling = FILTERS[geometry.interpolation]
    width, height = spans[0].taken, spans[1].taken
    # For a part, or an image that is turned later, Pillow could choose another order than for the whole upright image.
    if not is_plain and is_height_first:
        image = image.resize((image.width, height), resampling, box=(0, top, image.width, bottom))
        top, bottom = 0, height
    elif not is_plain:
        image = image.resize((width, image.height), resampling, box=(left, 0, right, image.height))
        left, right = 0, width
    image = image.resize((width, height), resampling, box=(left, top, right, bottom))
    return image if turn.method is None else image.transpose(turn.method)


def _fit_nearest(image: Image.Image, size: int, geometry: Geometry, turn: Turn) -> Image.Image:
    """Turn and resize the whole image: this filter is not symmetrical, and the borders of a part would move pixels."""
    if turn.method is not None:
        image = image.transpose(turn.method)
    spans = _spans(image.size, size, geometry)
    image = image.resize((spans[0].resized, spans[1].resized), FILTERS["nearest"])
    (left, width), (top, height) = ((span.start, span.taken) for span in spans)
    return image.crop((left, top, left + width, top + height))


def _turn(geometry: Geometry, orientation: int) -> Turn:
    return TURNS[orientation if geometry.orientation == UPRIGHT else AS_STORED]


def _swap(sides: tuple[int, int], turn: Turn) -> tuple[int, int]:
    return (sides[1], sides[0]) if turn.swaps_sides else sides


def _spans(sides: tuple[int, int], size: int, geometry: Geometry) -> tuple[_Span, _Span]:
    x, y = (
        _Span(length, resized, round((resized - size) / 2) if resized > size else 0, min(resized, size))
        for length, resized in zip(sides, resized_sides(sides, size, geometry), strict=True)
    )
    return x, y


def _takes_height_first(x: _Span, y: _Span) -> bool:
    """Tell whether Pillow resizes the height of the whole image before its width."""
    lost = y.length - y.resized
    return _MAY_TAKE_HEIGHT_FIRST and lost > 0 and lost > 2 * (x.length - x.resized)


def _is_small(span: _Span, interpolation: str) -> bool:
    first, end = span.reached(interpolation)
    return end - first < _SMALL_SHARE * span.length
