"""A network of a few dozen weights, exported in a second: ``--network tests.tiny_network:TinyNetwork``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tests import reference
from tests.resources import center, write_resources

NETWORK = f"{__name__}:TinyNetwork"
WIDE_NETWORK = f"{__name__}:WideNetwork"
IMAGE_SIZE = 32
WIDE = 20_000

# Called when a network is made, after its checkpoint was read.
when_made: list[Callable[[], object]] = []


class TinyNetwork(nn.Module):
    """Returns an embedding of 4 values, and logits."""

    preprocessing = {"image_size": IMAGE_SIZE}  # noqa: RUF012
    embedding_size = 4

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, self.embedding_size, 3, stride=4)
        self.head = nn.Linear(self.embedding_size, classes)
        for call in when_made:
            call()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images [N, 3, S, S] to embeddings [N, 4] and logits [N, C']."""
        embedding = self.conv(x).mean((2, 3))
        return embedding, self.head(embedding)


class WideNetwork(TinyNetwork):
    """Returns embeddings that are larger than its weights."""

    embedding_size = WIDE

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.conv = nn.Conv2d(3, WIDE, 1, stride=4)


def spread_network(classes: int, size: int, files: Sequence[Path], seed: int = 0) -> TinyNetwork:
    """Make a network of random weights whose embeddings and probabilities differ from image to image."""
    torch.manual_seed(seed)
    network = TinyNetwork(classes)
    batch = reference.images(files, size)
    with torch.no_grad():
        center(network.conv, network(batch)[0])
        center(network.head, network(batch)[1])
    return network


def make_state(seed: int, network: type[TinyNetwork] = TinyNetwork, classes: int = 2) -> dict[str, Tensor]:
    """Make weights, different ones for each seed."""
    torch.manual_seed(seed)
    return network(classes).state_dict()


def write_tiny_resources(folder: Path, seed: int = 0, network: type[TinyNetwork] = TinyNetwork) -> Path:
    """Write trained resources: one checkpoint, ``model_1``, and two classes."""
    return write_resources(folder, {"model_1": make_state(seed, network)}, {"a": 0, "b": 1}, epochs=[1])
