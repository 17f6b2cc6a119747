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
        checkpoint_epochs: A checkpoint is validated and written after these, counted from 1. All are among the last,
            when the learning rate has come down to a tenth of its peak: the few validation images call all of
            them equally good, and the first of equals is served.
        batch_size: Images in a step.
        max_learning_rate: Peak of the one-cycle schedule.
        weight_decay: AdamW's.
        label_smoothing: Share of the cross-entropy's target that all classes have in common, 0 to 1.
        similarity_weight: Weight of the similarity loss beside the cross-entropy.
        max_shift_pixels: Images are shifted by up to this, both ways.
        max_rotation_degrees: Images are turned by up to this, both ways.
        max_scale: Images are scaled by up to this factor, up and down, at least 1.
        max_contrast: Their contrast changes by up to this factor, up and down, at least 1.
        max_brightness: Their normalized pixels are raised or lowered by up to this.
        seed: Of the weights, the order and the augmentation.
        split_seed: Which images are in which part.
    """

    image_size: int = 64
    epochs: int = 24
    checkpoint_epochs: tuple[int, ...] = (21, 22, 23, 24)
    batch_size: int = 20
    max_learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    label_smoothing: float = 0.1
    similarity_weight: float = 1.0
    max_shift_pixels: int = 6
    max_rotation_degrees: float = 10.0
    max_scale: float = 1.15
    max_contrast: float = 1.35
    max_brightness: float = 0.3
    seed: int = 0
    split_seed: int = SPLIT_SEED
