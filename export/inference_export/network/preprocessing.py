"""What a network asks of its images, beside their decoding."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_IMAGE_SIZE = 384
IMAGE_SIZES = (32, 2048)
# ImageNet's, in RGB order, of values within 0 to 1.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
# Of values within 0 to 1; whoever gives those of 0 to 255 is told so.
MEAN_RANGE = (-10.0, 10.0)
STD_RANGE = (1e-6, 1e6)


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a network asks of its images.

    Args:
        image_size: Side S in pixels.
        mean: Subtracted from each channel, RGB, of values within 0 to 1; within ``MEAN_RANGE``.
        std: Divided by after that, within ``STD_RANGE``.
        own_image_size: The side that the network names itself; None: it names none.
    """

    image_size: int = DEFAULT_IMAGE_SIZE
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    own_image_size: int | None = None
