"""One network in every form that a checkpoint may have, served by the real server and compared with plain PyTorch.

``python -m tests.formats`` takes a tiny network, and with ``--demonstration`` the trained ResNet-50 of ``make demo``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
import tritonclient.http
from PIL import Image
from torch import nn

from inference_client.command_line.formatting import table_lines
from inference_export import ExportOptions, export_repository
from inference_export.network.preprocessing import MEAN, STD
from inference_export.network.resnet50 import TwoHeadedResNet50
from inference_export.onnx_session import open_graph, run_graph
from inference_server.triton.process import running_server
from tests import tiny_network

CLASSES = ["a", "b"]
TOLERANCE = 1e-5
IMAGES = 8
SIZE = tiny_network.IMAGE_SIZE


def export_pt2(network: nn.Module, path: Path, size: int = SIZE) -> None:
    """Write a network as torch.export saves it, for any number of images."""
    images = torch.randn(2, 3, size, size)
    program = torch.export.export(network.eval(), (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(program, path)


def export_onnx(network: nn.Module, path: Path, size: int = SIZE) -> None:
    """Write a network as PyTorch's ONNX exporter does by default: with its larger weights in a second file."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(),
            (torch.randn(2, 3, size, size),),
            path,
            dynamo=True,
            verbose=False,
            opset_version=20,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["embedding", "logits"],
        )


def _training_checkpoint(network: nn.Module, path: Path, size: int = SIZE) -> None:
    state = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(2, 3, size, size))[1].sum().backward()
    optimizer.step()
    network.load_state_dict(state)
    rest = {"optimizer_state_dict": optimizer.state_dict(), "best": np.float64(0.9), "args": argparse.Namespace(lr=0.1)}
    torch.save({"epoch": 3, "model_state_dict": state, **rest}, path)


# Name of the file, and what writes it.
FORMATS: dict[str, Callable[[nn.Module, Path, int], object]] = {
    "state_dict.pth": lambda network, path, _: torch.save(network.state_dict(), path),
    "training.ckpt": _training_checkpoint,
    "ddp.pth": lambda network, path, _: torch.save(nn.DataParallel(network).state_dict(), path),
    "weights.safetensors": lambda network, path, _: safetensors.torch.save_file(network.state_dict(), path),
    "network.pt2": export_pt2,
    "network.onnx": export_onnx,
}


def make_network() -> tiny_network.TinyNetwork:
    """Make a network whose answers differ from image to image."""
    torch.manual_seed(7)
    return tiny_network.TinyNetwork(len(CLASSES)).eval()


def write_format(name: str, folder: Path, network: nn.Module, size: int = SIZE) -> Path:
    """Write one of ``FORMATS``, with the labels beside it, and return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.json").write_text(json.dumps(CLASSES))
    FORMATS[name](network, folder / name, size)
    return folder / name


def make_pixels(size: int = SIZE) -> npt.NDArray[np.uint8]:
    """Make images of noise, uint8 [8, S, S, 3]."""
    return np.random.default_rng(0).integers(0, 256, (IMAGES, size, size, 3), np.uint8)


def plain_answers(network: nn.Module, pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Compute embeddings and probabilities in plain PyTorch, from the words of the documentation."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        embeddings, logits = network((images - mean) / std)
    return embeddings.numpy(), logits.softmax(dim=1).numpy()


def export_format(
    file: Path, repository: Path, factory: str | None = tiny_network.NETWORK, image_size: int | None = None
) -> Path:
    """Export a file, and return the exported graph."""
    is_complete = file.suffix in (".pt2", ".onnx")
    network = None if is_complete else factory
    options = ExportOptions(resources=file, network=network, image_size=image_size, model_repository=repository)
    export_repository(options)
    return repository / "classifier" / "1" / "model.onnx"


def difference(graph: Path, network: nn.Module) -> tuple[float, float]:
    """Return the largest differences of a served embedding and a probability from plain PyTorch's."""
    pixels = make_pixels()
    served = run_graph(open_graph(graph), pixels)
    pairs = zip(served, plain_answers(network, pixels), strict=True)
    embedding, probability = (float(np.abs(one - other).max()) for one, other in pairs)
    return embedding, probability


def ask(url: str, pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Ask a server for the embeddings and the probabilities of images, which it gets as PNG files."""
    files = []
    for each in pixels:
        Image.fromarray(each).save(file := io.BytesIO(), "PNG")
        files.append([file.getvalue()])
    image = tritonclient.http.InferInput("IMAGE", [len(files), 1], "BYTES")
    image.set_data_from_numpy(np.array(files, np.object_))
    outputs = [tritonclient.http.InferRequestedOutput(name) for name in ("EMBEDDING", "SCORES")]
    with tritonclient.http.InferenceServerClient(url.removeprefix("http://")) as client:
        answer = client.infer("ensemble", [image], outputs=outputs)
    return answer.as_numpy("EMBEDDING"), answer.as_numpy("SCORES")


def main() -> None:
    """Print how far each form's answers are from PyTorch's; exit code 1 if one is further than ``TOLERANCE``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demonstration", action="store_true")
    network: nn.Module
    if parser.parse_args().demonstration:
        network, factory, size = TwoHeadedResNet50(len(CLASSES)), None, 64
        (checkpoint, *_) = sorted(Path("build/demonstration/resources/models").iterdir())
        network.load_state_dict(torch.load(checkpoint, weights_only=True))
        network.eval()
    else:
        network, factory, size = make_network(), tiny_network.NETWORK, SIZE
    pixels = make_pixels(size)
    expected = plain_answers(network, pixels)
    rows: list[tuple[str, ...]] = [("checkpoint", "largest difference of an embedding", "of a probability")]
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        for each in FORMATS:
            file = write_format(each, Path(name) / Path(each).stem, network, size)
            repository = file.parent / "repository"
            export_format(file, repository, factory, size)
            with running_server(repository, log=file.parent / "log") as server:
                pairs = zip(ask(server.url, pixels), expected, strict=True)
                found = [float(np.abs(one - other).max()) for one, other in pairs]
            worst = max(worst, *found)
            rows.append((each, *(f"{value:.1e}" for value in found)))
    print("\n".join(table_lines(rows)))
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
