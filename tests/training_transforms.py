"""torchvision and timm, whose transforms are the reference for preprocessing.

PyPI's torchvision has compiled operators, which don't load beside the PyTorch build for CPUs. Its transforms need none of
them, and its import only wants two of them to be declared.
"""

from __future__ import annotations

import torch

_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from timm.data import create_transform, resolve_data_config  # noqa: E402
from torchvision import transforms  # noqa: E402
from torchvision.models import ResNet50_Weights  # noqa: E402
from torchvision.transforms import v2  # noqa: E402

__all__ = ["ResNet50_Weights", "create_transform", "resolve_data_config", "transforms", "v2"]
