"""The network: depthwise separable convolutions with 83,000 weights; ResNet-50 has 25 million."""

from __future__ import annotations

from torch import Tensor, nn

EMBEDDING_SIZE = 96


class Block(nn.Module):
    """Convolves each channel separately, then mixes the channels at each pixel.

    A block with as many output as input channels adds its input to its output. Any other block halves the image.

    Source:
        Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.halves = channels_in != channels_out
        wide = 2 * channels_in
        self.layers = nn.Sequential(
            nn.Conv2d(channels_in, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, wide, 3, stride=2 if self.halves else 1, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, channels_out, 1, bias=False),
            nn.BatchNorm2d(channels_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels_in, H, W] to [N, channels_out, H, W], or to [N, channels_out, H / 2, W / 2]."""
        out: Tensor = self.layers(x)
        return out if self.halves else x + out


class SmallNetwork(nn.Module):
    """An embedding of 96 values, and class logits computed from it.

    Args:
        classes: Number of classes C'; the only argument that the export passes.
    """

    # The exported graph prepares pixels in this way.
    preprocessing = {"image_size": 48, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}  # noqa: RUF012

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.blocks = nn.Sequential(Block(24, 24), Block(24, 48), Block(48, 48), Block(48, 96), Block(96, 96))
        self.embed = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, EMBEDDING_SIZE))
        self.classify = nn.Linear(EMBEDDING_SIZE, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map mean/std-normalized images [N, 3, S, S] to embeddings [N, 96] and logits [N, C']."""
        embedding = self.embed(self.blocks(self.stem(x)))
        return embedding, self.classify(embedding)
