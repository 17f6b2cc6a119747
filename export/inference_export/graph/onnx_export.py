"""Writing the served network as an ONNX graph."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from inference_export.descriptions import describe_error
from inference_export.errors import NetworkError, ParityError, Terminated
from inference_export.full_disk import find_full_disk
from inference_export.graph.onnx_wrapping import wrap_model
from inference_export.network.complete.onnx_file import MAX_IR_VERSION
from inference_export.network.networks import Network, OnnxNetwork
from inference_export.network.preprocessing import Preprocessing
from inference_export.network.users_code import FAILURES
from inference_export.onnx_session import INPUT, OUTPUTS

if TYPE_CHECKING:
    from torch import nn

OPSET = 20


def export_network(network: Network, preprocessing: Preprocessing, path: Path) -> None:
    """Write a network as an ONNX graph from ``PIXELS``, uint8 [N, S, S, 3], to ``EMBEDDING`` and ``PROBABILITIES``.

    Args:
        network: PyTorch's, or an .onnx file's.
        preprocessing: The preprocessing that the network asks for.
        path: The file to write. It holds the weights too.

    Raises:
        NetworkError: The network can't be exported.
        OSError: The disk is full.
        ParityError: PyTorch wrote a version of ONNX that Triton can't read.
    """
    if isinstance(network, OnnxNetwork):
        import onnx

        model = wrap_model(network, preprocessing)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return
    from inference_export.network.resnet50 import fold_batch_norms
    from inference_export.network.served import as_served

    export_graph(as_served(fold_batch_norms(network.module), preprocessing), preprocessing.image_size, path)


def export_graph(served: nn.Module, image_size: int, path: Path) -> None:
    """Write a network with PyTorch's exporter.

    Args:
        served: A ``ServedNetwork`` in evaluation mode.
        image_size: Side S in pixels.
        path: The file to write. It holds the weights too.

    Raises:
        NetworkError: PyTorch can't export the network.
        OSError: The disk is full.
        ParityError: PyTorch wrote a version of ONNX that Triton can't read.
    """
    import onnx
    import torch

    pixels = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # PyTorch's exporter warns about its own internals
        for talkative in ("onnxscript", "torch.onnx"):
            logging.getLogger(talkative).setLevel(logging.ERROR)
        try:
            torch.onnx.export(
                served,
                (pixels,),
                path,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except Terminated:
            raise
        except FAILURES as error:  # the network's own code may raise anything
            full = find_full_disk(error)
            if full is not None:
                raise OSError(full.errno, full.strerror, str(path)) from error
            raise NetworkError(
                f"PyTorch can't export this network to ONNX: {_cause(error)}\n"
                f"  The usual causes are Python conditions on the values of tensors, shapes tied to a number of "
                f"images, and operators without an ONNX form; see torch.onnx.export(dynamo=True)."
            ) from error
    model = onnx.load(path)
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # paths on this machine, for one; without them, equal networks give equal files
    onnx.checker.check_model(model, full_check=True)
    if model.ir_version > MAX_IR_VERSION:
        raise ParityError(
            f"the installed PyTorch wrote ONNX IR version {model.ir_version}; Triton's containers read up to "
            f"{MAX_IR_VERSION}. Install the PyTorch version that constraints.txt names.",
            path,
        )
    onnx.save(model, path)


def _cause(error: BaseException) -> str:
    """Describe the first exception in the chain: the exporter wraps it in its own reports."""
    while error.__cause__ is not None:
        error = error.__cause__
    return describe_error(error)
