"""Reading a .pt2 file, torch.export's ExportedProgram, without PyTorch's loader.

That loader unpickles, evaluates texts as Python, and generates code from the names in the file. Here the file is data:
JSON that names operators, and the raw bytes of tensors.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inference_client.command_line.formatting import printable
from inference_export.descriptions import describe_value
from inference_export.errors import ResourcesError
from inference_export.network.complete.pt2_operators import TEXTS, UnknownOperatorError, find_operator
from inference_export.resources.checkpoint_file import CheckpointFile
from inference_export.resources.memory_limit import memory_limit

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_JSON_BYTES = 64 * 2**20
MAX_ENTRIES = 20_000
MAX_NODES = 100_000
_COPIES = 3  # of the file in memory
_SPARE_BYTES = 4 * 2**30  # for the objects that the JSON becomes: up to 48 bytes for each of its own
_SCHEMA_MAJOR = 8  # what PyTorch 2.9 to 2.13 write
_SYMBOL = re.compile(r"\w+|Symbol\('(\w+)'(?:, \w+=True)*\)")
SAVE = (
    "torch.export.save(torch.export.export(network.eval(), (images,), "
    "dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)), 'network.pt2'), with images of shape [2, 3, S, S]"
)
_INSTEAD = f"Save it again with the installed PyTorch: {SAVE}; or export the network to .onnx"

_TRAINING = f"its network was exported in training mode. Call network.eval(), then: {SAVE}"


@dataclass(frozen=True)
class Ref:
    """A value that is computed when the program runs.

    Attributes:
        name: Its name in the program.
    """

    name: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """A call of an operator.

    Attributes:
        operator: The operator's name in the file.
        arguments: Its arguments by name; ``Ref`` stands for a value, alone or in a list.
        results: Names of the results: one, a tuple, or a list.
        unpacks: Whether the operator returns several values.
    """

    operator: str
    arguments: dict[str, Any]
    results: list[str]
    unpacks: bool


@dataclass(frozen=True, kw_only=True)
class Program:
    """What a .pt2 file computes.

    Attributes:
        steps: The calls of operators, in order.
        tensors: Weights and constants by name.
        image: Name of the one input.
        image_shape: Its shape; None where any size is admitted.
        outputs: Names of the outputs, keys of a dictionary or places from 0, to their names in the program.
    """

    steps: list[Step]
    tensors: dict[str, Tensor]
    image: str
    image_shape: list[int | None]
    outputs: dict[str, str]


class _MalformedError(ValueError):
    """The file is not what torch.export.save writes; the message says why."""


def read_program(file: CheckpointFile) -> Program:
    """Read a .pt2 file. No code of the file runs, and PyTorch's loader does not see the file.

    Raises:
        ResourcesError: The file is malformed or unsafe, of another version, was exported for training or for a fixed
            number of images, or needs operators that a network of tensors does not need.
    """
    try:
        with (
            memory_limit(_COPIES * len(file.content) + _SPARE_BYTES),
            zipfile.ZipFile(io.BytesIO(file.content)) as archive,
        ):
            entries = _entries(archive, len(file.content))
            program = _object(_json(archive, entries, "models/model.json"))
            _check_version(program)
            stored = {
                **_tensors(archive, entries, "weights"),
                **_tensors(archive, entries, "constants"),
            }
            return _read(program, stored)
    except UnknownOperatorError as error:
        raise ResourcesError(
            f"{file.path} was not read: it calls {printable(str(error)[:100])}. Only ATen's operators on tensors are "
            f"run, no others and no code.\n"
            f"  Call the network outside of torch.no_grad() when you export it, or export it to .onnx.",
            file.path,
        ) from error
    except _MalformedError as error:
        raise ResourcesError(f"{file.path} was not read: {error}.", file.path) from error
    except Exception as error:  # KeyError, TypeError, RecursionError and more on malformed files
        raise ResourcesError(
            f"{file.path} is a .pt2 file that is broken, or that another version of PyTorch wrote. {_INSTEAD}.",
            file.path,
        ) from error


def _entries(archive: zipfile.ZipFile, length: int) -> dict[str, zipfile.ZipInfo]:
    """List the entries by their names below the archive's top folder, and check their sizes."""
    infos = archive.infolist()
    if len(infos) > MAX_ENTRIES:
        raise _MalformedError(f"its archive has {len(infos):,} entries, and at most {MAX_ENTRIES:,} are read")
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise _MalformedError(
            f"it is compressed, so its length does not tell how much memory it takes. torch.export.save never "
            f"compresses. {_INSTEAD}"
        )
    if sum(info.file_size for info in infos) > length:
        raise _MalformedError("the entries of its archive overlap, or claim more bytes than it has")
    if any(info.filename == "serialized_exported_program.json" for info in infos):
        raise _MalformedError(f"PyTorch before 2.8 wrote it, in a format of its own. {_INSTEAD}")
    top = next(info.filename for info in infos if info.filename.endswith("archive_format"))[: -len("archive_format")]
    entries = {info.filename.removeprefix(top): info for info in infos}
    if any(name.startswith("data/aotinductor/") for name in entries):
        raise _MalformedError(f"it holds machine code (AOTInductor), which is not run. {_INSTEAD}")
    return entries


def _json(archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], name: str) -> Any:
    if name not in entries:
        raise _MalformedError(f"its archive lacks {name}. {_INSTEAD}")
    if entries[name].file_size > MAX_JSON_BYTES:
        raise _MalformedError(f"{name} has {entries[name].file_size:,} bytes, and may have {MAX_JSON_BYTES:,}")
    return json.loads(archive.read(entries[name]))


def _check_version(program: Mapping[str, Any]) -> None:
    major = _object(program["schema_version"])["major"]
    if major != _SCHEMA_MAJOR:
        import torch

        writer = program.get("torch_version")
        raise _MalformedError(
            f"PyTorch {printable(writer[:40]) if isinstance(writer, str) else 'of another version'} wrote it, with "
            f"version {describe_value(major)} of the format. Version {_SCHEMA_MAJOR} is read, which the installed "
            f"PyTorch {torch.__version__} writes. {_INSTEAD}"
        )


def _tensors(archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], kind: str) -> dict[str, Tensor]:
    """Read the tensors of ``data/weights`` or ``data/constants`` from their raw bytes."""
    folder = f"data/{kind}"
    config = _object(_object(_json(archive, entries, f"{folder}/model_{kind}_config.json"))["config"])
    raw: dict[str, bytearray] = {}
    tensors = {}
    for name, each in config.items():
        if each["use_pickle"] or each["tensor_meta"] is None:
            raise _MalformedError(
                f"its {describe_value(name)} is a pickled object, and a pickle can run code. Only plain tensors are "
                f"read. {_INSTEAD}"
            )
        path = each["path_name"]
        if path not in raw:
            raw[path] = bytearray(archive.read(entries[f"{folder}/{path}"]))
        tensors[name] = _tensor(raw[path], each["tensor_meta"])
    return tensors


def _tensor(raw: bytearray, meta: Mapping[str, Any]) -> Tensor:
    import torch

    sizes, strides = ([_size(each) for each in meta[key]] for key in ("sizes", "strides"))
    offset = _size(meta["storage_offset"])
    dtype = _dtypes()[meta["dtype"]]
    if meta["layout"] != _STRIDED or len(sizes) != len(strides):
        raise _MalformedError("it holds a tensor that is not dense")
    if not math.prod(sizes):
        return torch.zeros(sizes, dtype=dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
    if (last + 1) * dtype.itemsize > len(raw) or len(raw) % dtype.itemsize:
        raise _MalformedError("it holds a tensor that is larger than its bytes")
    if math.prod(sizes) * dtype.itemsize > len(raw):
        raise _MalformedError("it holds a tensor that repeats its bytes")
    return torch.frombuffer(raw, dtype=dtype).as_strided(sizes, strides, offset).clone()


def _size(value: Mapping[str, Any]) -> int:
    number = value["as_int"]
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**40:
        raise _MalformedError(f"it holds a tensor with the size {describe_value(number)}")
    return number


_STRIDED = 7
_POSITIONAL_INPUT = "as_tensor"


def _dtypes() -> dict[int, torch.dtype]:
    import torch

    return {
        1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16,
        7: torch.float32, 8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
    }  # fmt: skip


def _read(program: Mapping[str, Any], stored: Mapping[str, Tensor]) -> Program:
    module = _object(program["graph_module"])
    graph, signature = _object(module["graph"]), _object(module["signature"])
    nodes = graph["nodes"]
    if not isinstance(nodes, list) or len(nodes) > MAX_NODES:
        raise _MalformedError(f"it has {describe_value(nodes)} as steps, and at most {MAX_NODES:,} are run")
    tensors, images = {}, []
    for spec in signature["input_specs"]:
        ((kind, value),) = spec.items()
        if kind == "user_input":
            ((form, argument),) = value["arg"].items()
            if form != _POSITIONAL_INPUT:
                raise _MalformedError(f"its input is no tensor ({printable(str(form)[:40])}). {_INSTEAD}")
            images.append(argument["name"])
        elif kind in _STORED:
            tensors[value["arg"]["name"]] = stored[value[_STORED[kind]]]
        else:
            raise _MalformedError(f"it takes an input of the kind {printable(str(kind)[:40])}. {_INSTEAD}")
    if len(images) != 1:
        raise _MalformedError(
            f"its network takes {len(images)} inputs, and must take one: images, float32 [N, 3, S, S]. {_INSTEAD}"
        )
    meta = graph["tensor_values"][images[0]]
    shape = [each.get("as_int") for each in meta["sizes"]]
    if len(shape) != 4 or meta["dtype"] != 7:  # noqa: PLR2004 - float32 [N, 3, S, S]
        raise _MalformedError(f"its network takes no images, float32 [N, 3, S, S]. {_INSTEAD}")
    if shape[0] is not None:
        raise _MalformedError(
            f"its network was exported for exactly {shape[0]} images, and the server needs any number. Export it with "
            f"dynamic_shapes: {SAVE}"
        )
    steps = [_step(node) for node in nodes]
    for step in steps:
        changed = step.arguments.get("self")
        changes_weights = (
            step.operator.split(".")[-2].endswith("_") and isinstance(changed, Ref) and changed.name in tensors
        )
        if changes_weights or any(step.arguments.get(name) is True for name in ("training", "train")):
            raise _MalformedError(_TRAINING)
    return Program(
        steps=steps,
        tensors=tensors,
        image=images[0],
        image_shape=shape,
        outputs=_outputs(module, signature),
    )


_STORED = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}


def _outputs(module: Mapping[str, Any], signature: Mapping[str, Any]) -> dict[str, str]:
    inside = []
    for spec in signature["output_specs"]:
        ((kind, value),) = spec.items()
        if kind == "buffer_mutation":
            raise _MalformedError(_TRAINING)
        if kind != "user_output" or "as_tensor" not in value["arg"]:
            raise _MalformedError(f"it returns something else than tensors ({printable(str(kind)[:40])}). {_INSTEAD}")
        inside.append(value["arg"]["as_tensor"]["name"])
    names = _output_names(module, len(inside)) or map(str, range(len(inside)))
    return dict(zip(names, inside, strict=True))


def _output_names(module: Mapping[str, Any], count: int) -> list[str] | None:
    """Read the keys of the dictionary that the network returns; None: it returns another form."""
    try:
        form = json.loads(module["module_call_graph"][0]["signature"]["out_spec"])[1]
        keys: Any = json.loads(form["context"]) if form["type"] == "builtins.dict" else None
    except (KeyError, IndexError, TypeError, ValueError, RecursionError):
        return None
    if isinstance(keys, list) and len(keys) == len(set(map(str, keys))) == count:
        return [str(key) for key in keys]
    return None


def _step(node: Mapping[str, Any]) -> Step:
    name = node["target"]
    find_operator(name)  # refuses unknown ones before anything runs
    outputs = node["outputs"]
    lists = len(outputs) == 1 and "as_tensors" in outputs[0]
    results = outputs[0]["as_tensors"] if lists else outputs
    return Step(
        operator=name,
        arguments={each["name"]: _argument(each["arg"]) for each in node["inputs"]},
        results=[each["name"] if lists else _result(each) for each in results],
        unpacks=lists or len(outputs) > 1,
    )


def _result(output: Mapping[str, Any]) -> str:
    ((form, value),) = output.items()
    if form == "as_tensor":
        return str(value["name"])
    if form in ("as_sym_int", "as_sym_bool", "as_sym_float"):
        return str(value["as_name"])
    if form == "as_none":
        return ""
    raise _MalformedError(f"a step returns {printable(str(form)[:40])}. {_INSTEAD}")


def _argument(argument: Mapping[str, Any]) -> Any:  # noqa: PLR0911 - a case each
    ((form, value),) = argument.items()
    if form == "as_none":
        return None
    if form == "as_tensor":
        return Ref(value["name"])
    if form == "as_tensors":
        return [Ref(each["name"]) for each in value]
    if form in ("as_optional_tensors", "as_sym_ints", "as_sym_bools", "as_sym_floats"):
        return [_argument({"as_sym_int": each} if form != "as_optional_tensors" else each) for each in value]
    if form in ("as_sym_int", "as_sym_bool", "as_sym_float"):
        ((inner, each),) = value.items()
        return Ref(each) if inner == "as_name" else _plain(each)
    if form in ("as_int", "as_bool", "as_float"):
        return _plain(value)
    if form in ("as_ints", "as_bools", "as_floats"):
        return [_plain(each) for each in value]
    if form == "as_string" and value in TEXTS:
        return value
    return _constant(form, value)


def _constant(form: str, value: Any) -> Any:
    import torch

    if form == "as_scalar_type":
        return _dtypes()[value]
    if form == "as_memory_format":
        return {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}[value]
    if form == "as_layout" and value == _STRIDED:
        return torch.strided
    if form == "as_device":
        return torch.device("cpu")
    raise _MalformedError(
        f"a step takes the argument {describe_value(value)} ({printable(str(form)[:40])}), which no network of tensors "
        f"needs. {_INSTEAD}"
    )


def _plain(value: Any) -> int | float | bool:
    if isinstance(value, str):
        return float({"Infinity": "inf", "-Infinity": "-inf", "NaN": "nan"}[value])
    if not isinstance(value, (int, float)) or abs(value) >= 2**63:
        raise _MalformedError(f"a step takes the number {describe_value(value)}")
    return value


def _object(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _MalformedError(f"it holds {describe_value(value)} where its format has an object. {_INSTEAD}")
    return value
