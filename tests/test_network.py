from __future__ import annotations

from pathlib import Path

import torch

from inference_export.network.resnet50 import EMBEDDING_SIZE, TwoHeadedResNet50

TORCHVISION_KEYS = Path(__file__).parent / "data" / "torchvision_resnet50_keys.txt"


def test_state_dict_keys_are_torchvisions_but_for_the_heads() -> None:
    expected = [f"resnet.{key}" for key in TORCHVISION_KEYS.read_text().split() if not key.startswith("fc.")]
    expected += ["resnet.fc.0.weight", "resnet.fc.0.bias", "classifier.weight", "classifier.bias"]
    assert list(TwoHeadedResNet50(2).state_dict()) == expected


def test_network_gives_embedding_within_one_and_logits_of_every_class() -> None:
    with torch.inference_mode():
        embedding, logits = TwoHeadedResNet50(7).eval()(torch.randn(2, 3, 64, 64))
    assert embedding.shape == (2, EMBEDDING_SIZE)
    assert embedding.abs().max() <= 1
    assert logits.shape == (2, 7)
