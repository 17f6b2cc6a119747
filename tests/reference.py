"""The server's right answers, computed independently: plain PyTorch functions, plain Pillow, plain loops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

State = dict[str, torch.Tensor]


def images(files: Sequence[Path], size: int) -> torch.Tensor:
    """Read ordinary 8-bit images to float32 [N, 3, S, S], normalized."""
    rows = []
    for file in files:
        with Image.open(file) as opened:
            image = opened.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        rows.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (torch.stack(rows).float().div(255) - mean) / std


def network(state: State, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the network from its state dict alone: embedding and softmax probabilities."""

    def conv_bn(x: torch.Tensor, conv: str, bn: str, stride: int = 1, padding: int = 0) -> torch.Tensor:
        x = F.conv2d(x, state[f"{conv}.weight"], stride=stride, padding=padding)
        mean, var, weight, bias = (state[f"{bn}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias)

    x = F.max_pool2d(F.relu(conv_bn(x, "resnet.conv1", "resnet.bn1", 2, 3)), 3, 2, 1)
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            name = f"resnet.layer{layer}.{block}"
            stride = 2 if block == 0 and layer > 1 else 1
            y = F.relu(conv_bn(x, f"{name}.conv1", f"{name}.bn1"))
            y = F.relu(conv_bn(y, f"{name}.conv2", f"{name}.bn2", stride, 1))
            y = conv_bn(y, f"{name}.conv3", f"{name}.bn3")
            if block == 0:
                x = conv_bn(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            x = F.relu(x + y)
    embedding = torch.tanh(F.linear(x.mean((2, 3)), state["resnet.fc.0.weight"], state["resnet.fc.0.bias"]))
    logits = F.linear(embedding, state["classifier.weight"], state["classifier.bias"])
    return embedding, logits.softmax(1)


def classify(state: State, labels: Sequence[str], files: Sequence[Path], size: int) -> list[dict[str, Any]]:
    """Answer in classification mode: the most probable class."""
    with torch.inference_mode():
        probabilities = network(state, images(files, size))[1]
    return [
        {
            "Label": labels[int(row.argmax())],
            "Probability": float(row.max()),
            "Scores": dict(zip(labels, row.tolist(), strict=True)),
        }
        for row in probabilities
    ]


class Embedder:
    """Answers in clustering mode, with every embedding computed once."""

    def __init__(self, state: State, size: int) -> None:
        self._state = state
        self._size = size
        self._embeddings: dict[Path, torch.Tensor] = {}

    def median_similarity(self, base: dict[str, list[Path]], files: Sequence[Path]) -> float:
        """Find a threshold that half of all pairs reach."""
        pairs = self.embed([file for name in base for file in base[name]]) @ self.embed(files).T
        return float(pairs.median())

    def cluster(self, base: dict[str, list[Path]], files: Sequence[Path], threshold: float) -> list[dict[str, Any]]:
        """Choose the class of most base images at or above the threshold, then of the most similar one."""
        names = sorted(base)
        answers = []
        for query in self.embed(files):
            similarities = {name: (self.embed(sorted(base[name])) @ query).tolist() for name in names}
            matches = {name: sum(value >= threshold for value in similarities[name]) for name in names}
            scores = {name: max(similarities[name]) for name in names}
            label = max(names, key=lambda name: (matches[name], scores[name]))
            ranked = [
                (value, f"{name}/{file.name}")
                for name in names
                for value, file in zip(similarities[name], sorted(base[name]), strict=True)
            ]
            answers.append(
                {
                    "Label": label,
                    "Probability": scores[label],
                    "Scores": scores,
                    "Matches": matches,
                    "Neighbors": sorted(ranked, reverse=True),
                    "Similarities": similarities,
                }
            )
        return answers

    def embed(self, files: Sequence[Path]) -> torch.Tensor:
        """Embed images, float32 [N, 512] of norm 1."""
        new = [file for file in files if file not in self._embeddings]
        if new:
            with torch.inference_mode():
                rows = F.normalize(network(self._state, images(new, self._size))[0])
            self._embeddings.update(zip(new, rows, strict=True))
        return torch.stack([self._embeddings[file] for file in files])
