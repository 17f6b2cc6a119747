"""The original's design: one Flask process with eager PyTorch, which classifies one image after the other.

A request is a JSON list of base64 images. The server decodes, resizes and classifies each image, and answers with
a list of {'Label', 'Probability'}.
"""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from flask import Flask, jsonify, request
from PIL import Image

from inference_export.network.loading import load_weights
from inference_export.network.preprocessing import MEAN, STD
from inference_export.regular_files import FileReader
from inference_export.resources.checkpoint_file import read_checkpoint_file
from inference_export.resources.checkpoints import select_checkpoint
from inference_export.resources.labels import read_labels
from inference_export.resources.trained import locate


def create_app(resources: Path, image_size: int) -> Flask:
    """Load the network and make the application."""
    reader = FileReader()
    trained = locate(resources)
    labels = read_labels(trained, reader)
    checkpoint = select_checkpoint(trained, "classification", reader).path
    network = load_weights(read_checkpoint_file(checkpoint, reader), len(labels)).module
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    app = Flask(__name__)

    def read(text: str) -> torch.Tensor:
        image = Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
        pixels = np.array(image.resize((image_size, image_size), Image.Resampling.BILINEAR))
        return (torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - mean) / std

    def classify() -> Any:
        with torch.inference_mode():
            _, logits = network(torch.stack([read(text) for text in request.get_json()]))
            probabilities = logits.softmax(dim=1)
        return jsonify([{"Label": labels[int(row.argmax())], "Probability": float(row.max())} for row in probabilities])

    app.add_url_rule("/", view_func=classify, methods=["POST"])
    return app


@click.command()
@click.option("--resources", type=click.Path(path_type=Path), required=True)
@click.option("--image_size", type=int, required=True)
@click.option("--port", type=int, required=True)
def main(resources: Path, image_size: int, port: int) -> None:
    """Serve on 127.0.0.1 with Flask's own server, which uses one thread per request."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    create_app(resources, image_size).run("127.0.0.1", port, threaded=True)


if __name__ == "__main__":
    main()
