"""What decides the outcome of the demonstration's training."""

from __future__ import annotations

from dataclasses import dataclass

from .data import SPLIT_SEED


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The recipe.

    Args:
        image_size: Side S in pixels.
        epochs: Passes over the train part.
        checkpoint_epochs: A checkpoint is validated and written after these, counted from 1. All are late, when the
            learning rate has come down: 20 validation images can't tell a settled network from a lucky one.
        batch_size: Images in a step.
        max_learning_rate: Peak of the one-cycle schedule.
        weight_decay: AdamW's.
        max_shift_pixels: Images are shifted by up to this, both ways.
        seed: Of the weights, the order and the augmentation.
        split_seed: Which images are in which part.
    """

    image_size: int = 64
    epochs: int = 24
    checkpoint_epochs: tuple[int, ...] = (15, 18, 21, 24)
    batch_size: int = 20
    max_learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    max_shift_pixels: int = 6
    seed: int = 0
    split_seed: int = SPLIT_SEED
