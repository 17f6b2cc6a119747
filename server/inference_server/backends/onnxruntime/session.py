"""Opens an ONNX Runtime session from a model's configuration, as Triton's native ``onnxruntime`` backend does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_MODEL_FILE = "model.onnx"
# A thread that waits for the others' part of a layer spins for this time before it sleeps: waking it takes as long, but
# threads that spin longer take cores from the decoders.
SPIN_DURATION_US = "100"

# Settings that Triton itself follows, whatever the backend.
_TRITON_SETTINGS = {
    "backend", "default_model_filename", "dynamic_batching", "input", "instance_group", "max_batch_size",
    "metric_tags", "model_repository_agents", "model_warmup", "name", "output", "platform", "response_cache", "runtime",
    "version_policy",
}  # fmt: skip
_TRITON_INSTANCE_SETTINGS = {"name", "kind", "count", "gpus", "rate_limiter"}
# Ways to move and order tensors. Triton fills in their defaults, but they mean nothing for numpy arrays.
_TRITON_OPTIMIZATIONS = {
    "eager_batching", "gather_kernel_buffer_threshold", "input_pinned_memory", "output_pinned_memory", "priority",
}  # fmt: skip
_TENSOR_SETTINGS = {"name", "data_type", "dims", "format", "label_filename"}
_SETTING_DEFAULTS: tuple[Any, ...] = ("", 0, False, [], {}, None, "FORMAT_NONE", {"decoupled": False})

_GRAPH_LEVELS = {
    0: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    -1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    1: onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    2: onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_ONNX_TYPES = {
    "TYPE_BOOL": "tensor(bool)",
    "TYPE_FP16": "tensor(float16)",
    "TYPE_FP32": "tensor(float)",
    "TYPE_FP64": "tensor(double)",
    "TYPE_INT8": "tensor(int8)",
    "TYPE_INT16": "tensor(int16)",
    "TYPE_INT32": "tensor(int32)",
    "TYPE_INT64": "tensor(int64)",
    "TYPE_UINT8": "tensor(uint8)",
    "TYPE_UINT16": "tensor(uint16)",
    "TYPE_UINT32": "tensor(uint32)",
    "TYPE_UINT64": "tensor(uint64)",
}


class ConfigError(ValueError):
    """The model's configuration has a setting that this backend does not support, or contradicts the ONNX file."""


def open_session(config: dict[str, Any], folder: Path, *, kind: str, device_id: int) -> onnxruntime.InferenceSession:
    """Open the version's ONNX file as its configuration says.

    Args:
        config: The model's configuration, as Triton's JSON with the defaults filled in.
        folder: The version folder.
        kind: The instance's kind, ``CPU`` or ``GPU``.
        device_id: The instance's GPU; not used on the CPU.

    Returns:
        The session; its inputs and outputs have the names, types and dimensions of the configuration.

    Raises:
        ConfigError: A setting is not supported, or file and configuration disagree; the message names the setting.
    """
    refuse_unsupported(config)
    path = folder / (config.get("default_model_filename") or DEFAULT_MODEL_FILE)
    session = onnxruntime.InferenceSession(str(path), session_options(config), providers=_providers(kind, device_id))
    _compare(config["input"], session.get_inputs(), path, batched=config["max_batch_size"] > 0)
    _compare(config["output"], session.get_outputs(), path, batched=config["max_batch_size"] > 0)
    return session


def refuse_unsupported(config: dict[str, Any]) -> None:
    """Raise ``ConfigError`` for any setting that this backend would ignore, unless it has its default."""
    _refuse_others(config, _TRITON_SETTINGS | {"optimization", "parameters"}, "")
    _refuse_others(config.get("optimization", {}), _TRITON_OPTIMIZATIONS | {"graph"}, "optimization.")
    _refuse_others(config.get("parameters", {}), {"intra_op_thread_count", "inter_op_thread_count"}, "parameters.")
    for name in ("input", "output"):
        for tensor in config.get(name, []):
            _refuse_others(tensor, _TENSOR_SETTINGS, f"{name}.")
    for group in config.get("instance_group", []):
        _refuse_others(group, _TRITON_INSTANCE_SETTINGS, "instance_group.")


def session_options(config: dict[str, Any]) -> onnxruntime.SessionOptions:
    """Translate ``optimization.graph.level`` and the thread counts (0: ONNX Runtime's own choice)."""
    options = onnxruntime.SessionOptions()
    level = int(config.get("optimization", {}).get("graph", {}).get("level", 0))
    if level not in _GRAPH_LEVELS:
        raise ConfigError(f"optimization.graph.level is {level}; it must be one of {sorted(_GRAPH_LEVELS)}")
    options.graph_optimization_level = _GRAPH_LEVELS[level]
    options.intra_op_num_threads = _thread_count(config, "intra_op_thread_count")
    options.inter_op_num_threads = _thread_count(config, "inter_op_thread_count")
    # The native backend has no such setting: its threads spin longer.
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_DURATION_US)
    return options


def _thread_count(config: dict[str, Any], key: str) -> int:
    text = config.get("parameters", {}).get(key, {}).get("string_value", "0")
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError(f"parameters.{key} is {text!r}; it must be a whole number, 0 for ONNX Runtime's own choice")
    return int(text)


def _providers(kind: str, device_id: int) -> list[Any]:
    if kind != "GPU":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise ConfigError(
            "instance_group.kind is KIND_GPU, but the installed ONNX Runtime has no CUDA. Install the gpu extra in "
            "place of export and server, or export with --device cpu"
        )
    # TF32 rounds the inputs of convolutions to 10 bits, which would move similarities by more than we promise.
    return [("CUDAExecutionProvider", {"device_id": device_id, "use_tf32": "0"}), "CPUExecutionProvider"]


def _refuse_others(settings: dict[str, Any], known: set[str], prefix: str) -> None:
    for name, value in settings.items():
        if name not in known and value not in _SETTING_DEFAULTS:
            raise ConfigError(
                f"{prefix}{name} is set, but the Python-based onnxruntime backend does not support it. Remove it, or "
                f"serve with a Triton that has the native backend"
            )


def _compare(configured: list[dict[str, Any]], actual: list[Any], path: Path, *, batched: bool) -> None:
    tensors = {tensor.name: tensor for tensor in actual}
    for tensor in configured:
        name = tensor["name"]
        if name not in tensors:
            raise ConfigError(f"config.pbtxt names a tensor {name}; {path.name} has {', '.join(tensors)}")
        if tensors[name].type != _ONNX_TYPES.get(tensor["data_type"]):
            raise ConfigError(f"{name} is {tensor['data_type']} in config.pbtxt, {tensors[name].type} in {path.name}")
        dims = [int(dim) for dim in tensor["dims"]]
        shape = tensors[name].shape[1 if batched else 0 :]
        if len(dims) != len(shape) or any(
            isinstance(there, int) and here not in (-1, there) for here, there in zip(dims, shape, strict=True)
        ):
            raise ConfigError(f"{name} has dims {dims} in config.pbtxt, {shape} in {path.name}")
