"""The built-in network: a ResNet-50 with an embedding head and a classifier head."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval

EMBEDDING_SIZE = 512


class Bottleneck(nn.Module):
    """A residual block of ResNet-50: 1x1, 3x3 and 1x1 convolutions, with the stride in the second.

    Stride and attribute names are torchvision's, so that its state dicts load.

    Source:
        He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.1.
    """

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        channels_out = width * self.expansion
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, channels_in, H, W] to [N, 4 * width, H / stride, W / stride]."""
        identity = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        out: Tensor = self.relu(x + identity)
        return out


class ResNet50(nn.Module):
    """ResNet-50 with torchvision's attribute names.

    Args:
        fc: The head, which gets 2048 pooled values.
    """

    def __init__(self, fc: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.layer1 = _stage(64, 64, blocks=3, stride=1)
        self.layer2 = _stage(256, 128, blocks=4, stride=2)
        self.layer3 = _stage(512, 256, blocks=6, stride=2)
        self.layer4 = _stage(1024, 512, blocks=3, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = fc

    def forward(self, x: Tensor) -> Tensor:
        """Map mean/std-normalized images [N, 3, S, S] to the output of ``fc``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        output: Tensor = self.fc(self.avgpool(x).flatten(1))
        return output


class TwoHeadedResNet50(nn.Module):
    """A network with two heads: an embedding of 512 values of -1 to 1, and the logits of the classes.

    Args:
        classes: Number of classes C', at least 1.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.resnet = ResNet50(nn.Sequential(nn.Linear(2048, EMBEDDING_SIZE), nn.Tanh()))
        self.classifier = nn.Linear(EMBEDDING_SIZE, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map mean/std-normalized images [N, 3, S, S] to embeddings [N, 512] and logits [N, C']."""
        embedding = self.resnet(x)
        return embedding, self.classifier(embedding)


def _stage(channels_in: int, width: int, *, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(channels_in, width, stride)
    rest = (Bottleneck(width * Bottleneck.expansion, width, 1) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """Copy the built-in network, with its batch norms folded into the convolutions before them.

    PyTorch's exporter would fold them too, but the export would take twice as long.

    Args:
        network: A network in evaluation mode.

    Returns:
        A network with the same outputs; the network itself if it is not the built-in one.
    """
    if not isinstance(network, TwoHeadedResNet50):
        return network
    folded = copy.deepcopy(network)
    for part in list(folded.modules()):
        if isinstance(part, nn.Sequential):
            _fold(part, "0", "1")
        else:
            for number in (1, 2, 3):
                _fold(part, f"conv{number}", f"bn{number}")
    return folded


def _fold(parent: nn.Module, convolution: str, norm: str) -> None:
    first, second = getattr(parent, convolution, None), getattr(parent, norm, None)
    if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
        setattr(parent, convolution, fuse_conv_bn_eval(first, second))
        setattr(parent, norm, nn.Identity())
