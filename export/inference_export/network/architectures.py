"""Guessing an architecture from the names of its weights, for messages."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Each pattern begins at the beginning of a name or after a dot. More specific architectures first.
_FAMILIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("a CLIP image tower", (r"visual\.(conv1|transformer)\b",)),
    ("Hugging Face's ViT", (r"encoder\.layer\.0\.attention\.attention\.query",)),
    ("a timm or torchvision Swin Transformer", (r"attn\.relative_position_bias_table",)),
    ("a timm ViT", (r"patch_embed\.proj\.weight", r"blocks\.0\.attn\.qkv\.weight")),
    ("torchvision's ViT", (r"conv_proj\.weight", r"encoder\.layers\.encoder_layer_0\.")),
    ("torchvision's DenseNet", (r"features\.denseblock1\.denselayer1\.",)),
    ("torchvision's EfficientNet", (r"features\.1\.0\.block\.0\.0\.weight",)),
    ("torchvision's ConvNeXt", (r"features\.1\.0\.layer_scale",)),
    ("torchvision's MobileNetV3", (r"features\.0\.0\.weight", r"features\.1\.block\.0\.0\.weight")),
    ("torchvision's MobileNetV2", (r"features\.0\.0\.weight", r"features\.1\.conv\.0\.0\.weight")),
    ("a timm EfficientNet or MobileNet", (r"conv_stem\.weight", r"blocks\.0\.0\.")),
    ("a timm ConvNeXt", (r"stages\.0\.blocks\.0\.(conv_dw|gamma)",)),
    ("torchvision's Inception", (r"Conv2d_1a_3x3\.",)),
    ("torchvision's VGG or AlexNet", (r"features\.0\.weight", r"classifier\.6\.weight")),
)
_BOTTLENECK_DEPTHS = {6: 50, 23: 101, 36: 152}  # by the number of blocks in the third stage
_BASIC_DEPTHS = {2: 18, 6: 34}


def guess_architecture(names: Iterable[str]) -> str | None:
    """Name the architecture that a network's weights look like; None: it looks like none that is known.

    >>> guess_architecture(["patch_embed.proj.weight", "blocks.0.attn.qkv.weight"])
    'a timm ViT'
    >>> guess_architecture(["layer1.0.conv1.weight", "layer3.5.conv3.weight", "fc.weight"])
    'a ResNet-50'
    """
    text = "\n".join(names)
    for family, patterns in _FAMILIES:
        if all(re.search(rf"(?m)(?:^|\.){pattern}", text) for pattern in patterns):
            return family
    blocks = [int(number) for number in re.findall(r"(?m)(?:^|\.)layer3\.(\d{1,3})\.conv1\.weight$", text)]
    if not blocks and not re.search(r"(?m)(?:^|\.)layer3\.\d", text):
        return None
    count = 1 + max([*blocks, *map(int, re.findall(r"(?m)(?:^|\.)layer3\.(\d{1,3})\.", text))])
    depths = _BOTTLENECK_DEPTHS if re.search(r"(?m)(?:^|\.)layer3\.\d+\.conv3\.weight", text) else _BASIC_DEPTHS
    return f"a ResNet-{depths[count]}" if count in depths else "a ResNet"
