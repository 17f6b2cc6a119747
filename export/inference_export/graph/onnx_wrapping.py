"""Putting the normalization before, and the softmax after, a complete network in an .onnx file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from inference_export.errors import NetworkError
from inference_export.network.complete.onnx_file import MAX_IR_VERSION, MAX_MODEL_BYTES, graphs_of
from inference_export.network.networks import OnnxNetwork
from inference_export.network.preprocessing import Preprocessing
from inference_export.onnx_session import INPUT, OUTPUTS

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

_PREFIX = "network/"  # before every name of the user's graph, so that none is one of ours
_RGB = (0, 1, 2)


def wrap_model(network: OnnxNetwork, preprocessing: Preprocessing) -> ModelProto:
    """Make the served graph: ``PIXELS`` to normalized images, the user's graph, and softmax of its logits.

    Args:
        network: The network, whose outputs are chosen.
        preprocessing: Image size, order of the channels, mean and std.

    Raises:
        NetworkError: The graph does not fit into one file.
    """
    from onnx import ModelProto, TensorProto, helper

    model = ModelProto()
    model.CopyFrom(network.model.model)
    _rename(model)
    graph = model.graph
    embedding, logits = (_PREFIX + name for name in network.outputs)
    before, constants = _normalization(preprocessing, _PREFIX + network.model.image)
    after = [
        helper.make_node("Cast", [embedding], [OUTPUTS[0]], to=TensorProto.FLOAT),
        helper.make_node("Cast", [logits], ["float_logits"], to=TensorProto.FLOAT),
        helper.make_node("Softmax", ["float_logits"], [OUTPUTS[1]], axis=1),
    ]
    size = preprocessing.image_size
    nodes = [*before, *graph.node, *after]
    initializers = [*graph.initializer, *constants]
    wrapped = helper.make_graph(
        nodes,
        "served",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["batch", size, size, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", None]) for name in OUTPUTS],
        initializers,
        sparse_initializer=graph.sparse_initializer,
    )
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    if "ai.onnx" in opsets:  # another name of ""
        opsets[""] = opsets.pop("ai.onnx")
    served = helper.make_model(
        wrapped,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=MAX_IR_VERSION,
    )
    if served.ByteSize() > MAX_MODEL_BYTES:
        raise NetworkError(
            f"{network.complete.path} takes {served.ByteSize():,} bytes with its weights, and one file holds "
            f"{MAX_MODEL_BYTES:,}."
        )
    return served


def _normalization(preprocessing: Preprocessing, image: str) -> tuple[list[NodeProto], list[TensorProto]]:
    from onnx import TensorProto, helper, numpy_helper

    order = preprocessing.channel_order
    shape = (1, len(order), 1, 1)
    values: dict[str, npt.NDArray[Any]] = {
        "brightest": np.array(255, np.float32),
        "mean": np.array(preprocessing.mean, np.float32).reshape(shape),
        "std": np.array(preprocessing.std, np.float32).reshape(shape),
        **({} if order == _RGB else {"order": np.array(order, np.int64)}),
    }
    reorder = [] if order == _RGB else [helper.make_node("Gather", ["planes", "order"], ["ordered"], axis=1)]
    nodes = [
        helper.make_node("Transpose", [INPUT], ["planes"], perm=[0, 3, 1, 2]),
        *reorder,
        helper.make_node("Cast", ["ordered" if reorder else "planes"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "brightest"], ["fractions"]),
        helper.make_node("Sub", ["fractions", "mean"], ["centered"]),
        helper.make_node("Div", ["centered", "std"], [image]),
    ]
    return nodes, [numpy_helper.from_array(value, name) for name, value in values.items()]


def _rename(model: ModelProto) -> None:
    """Put the prefix before every name of a value, in subgraphs too, and drop what only describes."""
    for graph in graphs_of(model.graph):
        del graph.value_info[:], graph.metadata_props[:], graph.quantization_annotation[:]
        for described in (*graph.input, *graph.output, *graph.initializer):
            described.name = _PREFIX + described.name
        for sparse in graph.sparse_initializer:
            sparse.values.name = _PREFIX + sparse.values.name
        for node in graph.node:
            node.name = _PREFIX + node.name if node.name else ""
            del node.metadata_props[:]
            for names in (node.input, node.output):
                names[:] = [_PREFIX + name if name else "" for name in names]
