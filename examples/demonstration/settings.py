"""The settings of the demonstration's training."""

from __future__ import annotations

from dataclasses import dataclass

from examples.demonstration.data import SPLIT_SEED


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """All settings that decide the outcome of the training.

    Attributes:
        image_size: Side S in pixels.
        epochs: Passes over the train part.
        checkpoint_epochs: Epochs, counted from 1, after which a checkpoint is validated and written. All are late,
            when the learning rate has fallen to a seventh of its peak or less. The few validation images may rate these
            checkpoints equal; then the first one is served.
        batch_size: Images per training step.
        max_learning_rate: Peak of the one-cycle schedule.
        weight_decay: Weight decay of AdamW.
        label_smoothing: Share of the cross-entropy target that is spread over all classes, 0 to 1.
        similarity_weight: Weight of the similarity loss, relative to the cross-entropy.
        max_shift_pixels: Largest shift of an image in each direction.
        max_rotation_degrees: Largest rotation in each direction.
        max_scale: Largest factor by which an image is enlarged or shrunk, at least 1.
        max_contrast: Largest factor by which the contrast is raised or lowered, at least 1.
        max_brightness: Largest amount by which normalized pixels are raised or lowered.
        seed: Seed of the weights, the order of the images, and the augmentation.
        split_seed: Seed of the split into parts.
    """

    image_size: int = 64
    epochs: int = 12
    checkpoint_epochs: tuple[int, ...] = (10, 11, 12)
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
