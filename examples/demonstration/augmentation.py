"""Random changes to train images; the class stays the same."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  (its customary name)
from torch import Tensor

from examples.demonstration.settings import TrainingSettings


def augment_images(images: Tensor, settings: TrainingSettings) -> Tensor:
    """Mirror, rotate, scale and shift each image at random, and change its brightness and contrast.

    Args:
        images: Mean/std-normalized images, float32 [N, 3, S, S].
        settings: The largest changes.

    Returns:
        Changed images, float32 [N, 3, S, S], channels last. Pixels from outside an image repeat its border.
    """
    count = len(images)
    angles = _spread(count, math.radians(settings.max_rotation_degrees))
    scales = torch.exp(_spread(count, math.log(settings.max_scale)))
    mirrors = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)  # noqa: PLR2004  (a fair coin)
    # affine_grid counts from -1 to 1 across the image, so a pixel is 2 / S wide.
    shifts = _spread(2 * count, 2 * settings.max_shift_pixels / images.shape[-1]).view(2, count)
    cosines, sines = scales * torch.cos(angles), scales * torch.sin(angles)
    rows = [
        torch.stack([mirrors * cosines, -sines, shifts[0]], dim=1),
        torch.stack([mirrors * sines, cosines, shifts[1]], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    means = moved.mean(dim=(1, 2, 3), keepdim=True)
    contrasts = torch.exp(_spread(count, math.log(settings.max_contrast))).view(-1, 1, 1, 1)
    brightness = _spread(count, settings.max_brightness).view(-1, 1, 1, 1)
    changed = (moved - means) * contrasts + means + brightness
    return changed.contiguous(memory_format=torch.channels_last)


def _spread(count: int, most: float) -> Tensor:
    return (2 * torch.rand(count) - 1) * most
