"""A network as the server runs it, from pixels to embedding and probabilities."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inference_export.network.preprocessing import Preprocessing
from inference_export.network.users_code import users_code


class ServedNetwork(nn.Module):
    """A network between mean/std normalization and softmax.

    Args:
        network: Returns (embedding, logits) for mean/std-normalized images.
        preprocessing: Order of the channels, mean and std.
        dtype: Type that the network computes with. Inputs and outputs have the same types with any.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.network = network.to(dtype)
        self.dtype = dtype
        self.channel_order = preprocessing.channel_order
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Map pixels, uint8 [N, S, S, 3], to embeddings float32 [N, D] and probabilities float32 [N, C']."""
        images = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
        if self.channel_order != (0, 1, 2):
            images = torch.cat([images[:, channel : channel + 1] for channel in self.channel_order], dim=1)
        embedding, logits = self.network(((images - self.mean) / self.std).to(self.dtype))
        return embedding.to(torch.float32), torch.softmax(logits.to(torch.float32), dim=1)


def as_served(network: nn.Module, preprocessing: Preprocessing, dtype: torch.dtype = torch.float32) -> ServedNetwork:
    """Wrap a network as the server runs it, in evaluation mode.

    Args:
        network: Returns (embedding, logits) for mean/std-normalized images.
        preprocessing: Order of the channels, mean and std.
        dtype: Type that the network computes with.

    Raises:
        NetworkError: The network's own code fails.
    """
    with users_code("putting the network into evaluation mode failed"):
        return ServedNetwork(network, preprocessing, dtype).eval()
