"""Reading an .onnx file under limits, its external data included."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from inference_client.command_line.formatting import printable
from inference_export.descriptions import describe_keys, describe_value
from inference_export.errors import ResourcesError
from inference_export.network.complete.onnx_limits import LimitError, check_limits
from inference_export.regular_files import FileReader
from inference_export.resources.checkpoint_file import MAX_CHECKPOINT_BYTES, CheckpointFile

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

MAX_MODEL_BYTES = 2**31 - 2**20  # what protobuf holds, less the nodes that the export adds
MAX_NODES = 100_000  # nodes in subgraphs included; ViT-giant has about 10,000
MAX_NESTING = 16  # of graphs in graphs
OPSETS = (11, 21)
MAX_IR_VERSION = 10  # of ONNX's file format; the newest that Triton's stock containers of recent years read
_SHOWN_LENGTH = 255  # of a file's name
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
# Their length is decided by a number in the file or in the input; and files beside the graph that others would load.
_REFUSED_OPERATORS = {
    "Loop": "a loop of any length",
    "Scan": "a loop of any length",
    "SequenceMap": "a loop of any length",
    "BeamSearch": "a loop of any length",
    "GreedySearch": "a loop of any length",
    "Sampling": "a loop of any length",
    "EPContext": "compiled code for some device",
}
EXPORT = (
    "torch.onnx.export(network.eval(), (images,), 'network.onnx', dynamo=True, opset_version=20, "
    "dynamic_shapes=({0: torch.export.Dim('batch')},), input_names=['images'], output_names=['embedding', 'logits'])"
)


@dataclass(kw_only=True)
class OnnxModel:
    """A complete network in an .onnx file.

    Attributes:
        path: The file.
        model: The whole network, external data included.
        image: Name of its one input.
        image_shape: Shape of that input, [N, channels, S, S]; None where any size is admitted.
        outputs: Names of its outputs.
        data_files: The files of external data beside it.
    """

    path: Path
    model: ModelProto
    image: str
    image_shape: list[int | None]
    outputs: list[str]
    data_files: list[Path]


class _MalformedError(ValueError):
    """The file can't be served; the message says why."""


def read_model(file: CheckpointFile, reader: FileReader) -> OnnxModel:
    """Read an .onnx file: its graph as data, and its external data from the same folder. Nothing in it is run.

    Args:
        file: The file.
        reader: Reads external data.

    Raises:
        ResourcesError: The file is malformed, too large, or needs more than the operators of ONNX and ONNX Runtime. Its
            input is not float32 [N, channels, S, S], or is for a fixed number of images.
        ChangedError: External data have changed since they were read.
    """
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    try:
        if len(file.content) > MAX_MODEL_BYTES:
            raise _MalformedError(f"it has {len(file.content):,} bytes, and may have {MAX_MODEL_BYTES:,}")
        check_limits(file.content, ModelProto.DESCRIPTOR)
        model = ModelProto.FromString(file.content)
        _check(model)
        model.ir_version = min(model.ir_version, MAX_IR_VERSION)  # later ones add nothing that opset 21 uses
        data_files = _load_external(model, file.path, reader)
        image, shape = _find_input(model)
    except (_MalformedError, LimitError) as error:
        raise ResourcesError(f"{file.path} was not read: {error}.", file.path) from error
    except (DecodeError, ValueError) as error:
        raise ResourcesError(
            f"{file.path} is an .onnx file that is broken. Export the network again: {EXPORT}.",
            file.path,
        ) from error
    return OnnxModel(
        path=file.path,
        model=model,
        image=image,
        image_shape=shape,
        outputs=[each.name for each in model.graph.output],
        data_files=data_files,
    )


def graphs_of(graph: GraphProto, depth: int = 0) -> Iterator[GraphProto]:
    """List a graph and all graphs inside its nodes.

    Raises:
        _MalformedError: The graphs nest too deeply.
    """
    if depth > MAX_NESTING:
        raise _MalformedError(f"its graphs nest more than {MAX_NESTING} deep")
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_of(attribute.g, depth + 1)
            for inner in attribute.graphs:
                yield from graphs_of(inner, depth + 1)


def _check(model: ModelProto) -> None:
    if len(model.functions):
        names = describe_keys([function.name for function in model.functions])
        raise _MalformedError(
            f"it defines functions of its own ({names}). Inline them: "
            f"onnx.save(onnx.inliner.inline_local_functions(onnx.load(file)), file)"
        )
    if len(model.training_info):
        raise _MalformedError(f"it describes a training, too. Export the network alone: {EXPORT}")
    domains = dict.fromkeys(opset.domain for opset in model.opset_import)
    if strange := [domain for domain in domains if domain not in _DOMAINS]:
        raise _MalformedError(
            f"it needs operators of {describe_keys(strange)}. Only those of ONNX and of ONNX Runtime are run; no "
            f"library of custom operators is loaded. Export the network without them"
        )
    own = {opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")}
    if len(own) > 1:
        raise _MalformedError(f"it names {len(own)} opsets of ONNX itself. Export the network again: {EXPORT}")
    version = next(iter(own), None)
    low, high = OPSETS
    if version is None or not low <= version <= high:
        raise _MalformedError(
            f"it uses opset {version}, and opsets {low} to {high} can be served. Export the network again: {EXPORT}; "
            f"or convert the file: onnx.save(onnx.version_converter.convert_version(onnx.load(file), 20), file)"
        )
    nodes = 0
    for graph in graphs_of(model.graph):
        nodes += len(graph.node)
        if nodes > MAX_NODES:
            raise _MalformedError(f"it has {nodes:,} nodes or more, and may have {MAX_NODES:,}")
        for node in graph.node:
            _check_node(node)


def _check_node(node: NodeProto) -> None:
    if node.domain not in _DOMAINS:
        raise _MalformedError(
            f"its node {printable(node.name[:100])!r} is an operator of {printable(node.domain[:100])}. Only those of "
            f"ONNX and of ONNX Runtime are run; no library of custom operators is loaded. Export the network without it"
        )
    if node.op_type in _REFUSED_OPERATORS:
        raise _MalformedError(
            f"its node {printable(node.name[:100])!r} is {node.op_type}, {_REFUSED_OPERATORS[node.op_type]}. A "
            f"network of images needs none. Export it without"
        )


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    for graph in graphs_of(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: AttributeProto) -> Iterable[TensorProto]:
    sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    sparse += attribute.sparse_tensors
    return [
        *([attribute.t] if attribute.HasField("t") else []),
        *attribute.tensors,
        *(tensor for each in sparse for tensor in (each.values, each.indices)),
    ]


def _load_external(model: ModelProto, path: Path, reader: FileReader) -> list[Path]:
    """Put external data into the model, from files of its own folder."""
    from onnx import TensorProto

    contents: dict[str, bytes] = {}
    total = 0
    for tensor in _tensors(model):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in contents:
            contents[location] = _read_beside(path, location, reader)
        content = contents[location]
        shown = printable(location)
        begin = _number(entries.get("offset", "0"))
        length = _number(entries["length"]) if "length" in entries else len(content) - begin
        if begin + length > len(content) or length < 0:
            raise _MalformedError(
                f"its tensor {printable(tensor.name[:100])!r} is said to lie at bytes {begin:,} to {begin + length:,} "
                f"of {shown}, which has {len(content):,}. Both files must come from the same export"
            )
        expected = _byte_length(tensor)
        if length != expected:
            raise _MalformedError(
                f"its tensor {printable(tensor.name[:100])!r} has {length:,} bytes in {shown}, and needs "
                f"{expected:,}. Both files must come from the same export"
            )
        total += length
        if total > MAX_MODEL_BYTES:
            raise _MalformedError(f"its weights take more than {MAX_MODEL_BYTES:,} bytes, which one file can't hold")
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = content[begin : begin + length]
    return [path.parent / name for name in contents]


def _read_beside(path: Path, location: str, reader: FileReader) -> bytes:
    if not location or PurePath(location).name != location or "\0" in location or "\\" in location or location == "..":
        raise _MalformedError(
            f"its weights are said to lie in {describe_value(location)}. External data may only lie beside the file, "
            f"under a plain name, as torch.onnx.export writes them"
        )
    data = path.parent / location
    shown = printable(location[:_SHOWN_LENGTH])
    if data.is_symlink():
        raise _MalformedError(f"its weights are said to lie in {shown}, which is a link. Put the file itself there")
    try:
        return reader.read(data, MAX_CHECKPOINT_BYTES)
    except FileNotFoundError as error:
        raise _MalformedError(
            f"its weights are said to lie in {shown} beside it, and there is no such file. Put it there, under this "
            f"name"
        ) from error
    except OSError as error:
        raise _MalformedError(f"its weights in {shown} can't be read ({error.strerror})") from error


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:  # noqa: PLR2004 - less than 2^63
        raise _MalformedError(f"its external data have the offset or length {describe_value(text)}")
    return int(text)


def _byte_length(tensor: TensorProto) -> int:
    from onnx import TensorProto

    is_half_byte = tensor.data_type in (TensorProto.INT4, TensorProto.UINT4)
    bits = 4 if is_half_byte else _item_bits(tensor.data_type)
    if any(size < 0 for size in tensor.dims):
        raise _MalformedError(f"its tensor {printable(tensor.name[:100])!r} has a negative size")
    return -(-int(math.prod(tensor.dims)) * bits // 8)


def _item_bits(data_type: int) -> int:
    from onnx import helper

    try:
        return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize) * 8
    except (KeyError, TypeError, ValueError) as error:
        raise _MalformedError(f"it has a tensor of the unknown type {data_type}") from error


def _find_input(model: ModelProto) -> tuple[str, list[int | None]]:
    from onnx import TensorProto

    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    if len(inputs) != 1:
        names = describe_keys([each.name for each in inputs]) if inputs else "none"
        raise _MalformedError(
            f"it takes {len(inputs)} inputs ({names}), and must take one: images, float32 [N, 3, S, S]. Export the "
            f"network with one input: {EXPORT}"
        )
    (image,) = inputs
    kind = image.type.tensor_type
    name = printable(image.name[:100])
    if not image.type.HasField("tensor_type") or kind.elem_type != TensorProto.FLOAT:
        known = image.type.HasField("tensor_type") and kind.elem_type in TensorProto.DataType.values()
        found = TensorProto.DataType.Name(kind.elem_type).lower() if known else "no tensor"
        raise _MalformedError(
            f"its input {name} is {found}, and must be float32 (float). Export the float32 network, "
            f"network.float().eval(): {EXPORT}"
        )
    shape = [each.dim_value if each.HasField("dim_value") and each.dim_value > 0 else None for each in kind.shape.dim]
    if len(shape) != 4 or not kind.HasField("shape"):  # noqa: PLR2004 - [N, channels, S, S]
        raise _MalformedError(f"its input {name} has the shape {_show(shape)}, and must have [N, 3, S, S]")
    batch, channels, height, width = shape
    if channels not in (1, 3) and width in (1, 3):
        raise _MalformedError(
            f"its input {name} has the shape {_show(shape)}: channels last. It must be [N, 3, S, S]. Put "
            f"images.permute(0, 3, 1, 2), or in ONNX a Transpose, before the network, or export it with channels first"
        )
    if channels not in (1, 3, None):
        raise _MalformedError(f"its input {name} has {channels} channels, and must have 3 (or 1 for grey)")
    if batch is not None:
        raise _MalformedError(
            f"its input {name} takes exactly {batch} images, and the server needs any number. Export it with "
            f"dynamic_shapes: {EXPORT}"
        )
    if height != width:
        raise _MalformedError(f"its input {name} has the shape {_show(shape)}, and images must be square: [N, 3, S, S]")
    return image.name, shape


def _show(shape: list[int | None]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"
