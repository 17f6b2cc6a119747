"""A modern alternative: the same network in PyTorch behind LitServe, with batching."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import click
import litserve
import numpy as np
import torch
from PIL import Image

from inference_export.network.loading import load_weights
from inference_export.network.preprocessing import MEAN, STD
from inference_export.regular_files import FileReader
from inference_export.resources.checkpoint_file import read_checkpoint_file
from inference_export.resources.checkpoints import select_checkpoint
from inference_export.resources.labels import read_labels
from inference_export.resources.trained import locate

MAX_BATCH_SIZE = 8
BATCH_TIMEOUT_S = 0.01


class ClassifyAPI(litserve.LitAPI):  # type: ignore[misc]
    """Decodes a batch in LitServe's worker and runs the network on it.

    Args:
        resources: The trained resources.
        image_size: Side S in pixels.
    """

    def __init__(self, resources: Path, image_size: int) -> None:
        super().__init__(max_batch_size=MAX_BATCH_SIZE, batch_timeout=BATCH_TIMEOUT_S)
        self._resources = resources
        self._size = image_size

    def setup(self, device: str) -> None:
        """Load the network in the worker."""
        reader = FileReader()
        trained = locate(self._resources)
        self._labels = read_labels(trained, reader)
        checkpoint = select_checkpoint(trained, "classification", reader).path
        self._network = load_weights(read_checkpoint_file(checkpoint, reader), len(self._labels)).module
        self._mean, self._std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe would take an annotation for the type of a query
        """Turn a JSON list of one base64 image into a normalized image."""
        image = Image.open(io.BytesIO(base64.b64decode(request[0]))).convert("RGB")
        pixels = np.array(image.resize((self._size, self._size), Image.Resampling.BILINEAR))
        return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - self._mean) / self._std

    def batch(self, inputs: list[torch.Tensor]) -> torch.Tensor:
        """Stack a batch."""
        return torch.stack(inputs)

    def predict(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the probabilities of a batch."""
        with torch.inference_mode():
            probabilities: torch.Tensor = self._network(batch)[1].softmax(dim=1)
        return probabilities

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        """Split a batch into its images."""
        return list(output)

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        """Name the most probable class."""
        return {"Label": self._labels[int(output.argmax())], "Probability": float(output.max())}


@click.command()
@click.option("--resources", type=click.Path(path_type=Path), required=True)
@click.option("--image_size", type=int, required=True)
@click.option("--port", type=int, required=True)
def main(resources: Path, image_size: int, port: int) -> None:
    """Serve on 127.0.0.1 with one worker, LitServe's default for a CPU."""
    server = litserve.LitServer(ClassifyAPI(resources, image_size), accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=port, log_level="error", generate_client_file=False)


if __name__ == "__main__":
    main()
