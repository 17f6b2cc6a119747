"""The ``config.pbtxt`` of each model: every value is written here, none is inherited from an earlier export."""

from __future__ import annotations

import re
from dataclasses import dataclass

MODELS = ("preprocess", "classifier", "cluster_head")
ENSEMBLE = "ensemble"
CONFIG_FILE = "config.pbtxt"
MAX_CONFIG_BYTES = 2**16

ALL_CORES = 0  # as many as the serving machine has, found when the server starts
# Requests waiting for one model. The next one is answered 503 at once, and so is one that has waited too long: where
# requests are batches, fewer of them are done in the time that clients wait.
# Each decodes the images of one request at a time, so that no request waits for the images of another; all but one may
# be busy with large ones.
PREPROCESS_INSTANCES = 4
MAX_QUEUE_SIZE = 64
MAX_QUEUE_S = 20


@dataclass(frozen=True, kw_only=True)
class RepositoryShape:
    """What all versions in a repository share, since a model's versions share one ``config.pbtxt``.

    Args:
        image_size: Side S of the network's input in pixels.
        embedding_size: Length D of an embedding.
        network_classes: Number of the network's classes C'.
        max_batch_size: Most images in a request, and in a batch of the network.
        device: ``cpu`` or ``gpu``: where the classifier runs.
        cpus: Cores that the server may use: threads that decode, and threads of the network; 0: all that it finds.
    """

    image_size: int
    embedding_size: int
    network_classes: int
    max_batch_size: int
    device: str
    cpus: int


def render_configs(shape: RepositoryShape, *, versions: list[int], pinned: int) -> dict[str, str]:
    """Write the configuration of every model.

    Args:
        shape: What the versions share.
        versions: Complete versions, which Triton is to load, ascending.
        pinned: The version that the ensemble answers with.

    Returns:
        Model name to the text of its ``config.pbtxt``.
    """
    return {
        "preprocess": _preprocess(shape, versions),
        "classifier": _classifier(shape, versions),
        "cluster_head": _cluster_head(shape, versions),
        ENSEMBLE: _ensemble(shape, pinned),
    }


def without_versions(config: str) -> str:
    """Blank the version numbers in a configuration, which alone may differ between exports of the same shape."""
    config = re.sub(r"(?m)^version_policy: .*$", "version_policy", config)
    return re.sub(r"model_version: \d+", "model_version", config)


def with_versions(config: str, versions: list[int], pinned: int) -> str:
    """Write other version numbers into a configuration of ours; as ``render_configs`` would."""
    config = re.sub(r"(?m)^version_policy: .*$", f"version_policy: {{ specific {{ versions: {versions} }} }}", config)
    return re.sub(r"model_version: \d+", f"model_version: {pinned}", config)


def pinned_version(ensemble_config: str) -> int | None:
    """Read which version an ensemble's configuration answers with; None if it is not one of ours."""
    pins = set(re.findall(r"model_version: (\d{1,9})\b", ensemble_config))
    return int(pins.pop()) if len(pins) == 1 else None


_OUTPUTS = """output [
  { name: "LABEL" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "PROBABILITY" data_type: TYPE_FP32 dims: [ 1 ] },
  { name: "ERROR" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "CLASSES" data_type: TYPE_STRING dims: [ -1 ] },
  { name: "SCORES" data_type: TYPE_FP32 dims: [ -1 ] },
  { name: "MATCHES" data_type: TYPE_INT32 dims: [ -1 ] },
  { name: "NEIGHBOR" data_type: TYPE_STRING dims: [ -1 ] },
  { name: "NEIGHBOR_SIMILARITY" data_type: TYPE_FP32 dims: [ -1 ] },
  { name: "EMBEDDING" data_type: TYPE_FP32 dims: [ %d ] }
]"""


def _preprocess(shape: RepositoryShape, versions: list[int]) -> str:
    size = shape.image_size
    parameters = _parameters(decode_threads=shape.cpus)
    return f"""name: "preprocess"
backend: "python"
max_batch_size: {shape.max_batch_size}
input [
  {{ name: "IMAGE" data_type: TYPE_STRING dims: [ 1 ] }}
]
output [
  {{ name: "PIXELS" data_type: TYPE_UINT8 dims: [ {size}, {size}, 3 ] }},
  {{ name: "ERROR" data_type: TYPE_STRING dims: [ 1 ] }},
  {{ name: "FILE_BYTES" data_type: TYPE_INT64 dims: [ 1 ] }}
]
{_common(versions, count=PREPROCESS_INSTANCES, kind="KIND_CPU", preferred_batch_size=1)}{parameters}"""


def _classifier(shape: RepositoryShape, versions: list[int]) -> str:
    size = shape.image_size
    parameters = _parameters(intra_op_thread_count=shape.cpus)
    return f"""name: "classifier"
backend: "onnxruntime"
max_batch_size: {shape.max_batch_size}
input [
  {{ name: "PIXELS" data_type: TYPE_UINT8 dims: [ {size}, {size}, 3 ] }}
]
output [
  {{ name: "EMBEDDING" data_type: TYPE_FP32 dims: [ {shape.embedding_size} ] }},
  {{ name: "PROBABILITIES" data_type: TYPE_FP32 dims: [ {shape.network_classes} ] }}
]
{_common(versions, count=1, kind=f"KIND_{shape.device.upper()}")}{parameters}"""


def _cluster_head(shape: RepositoryShape, versions: list[int]) -> str:
    return f"""name: "cluster_head"
backend: "python"
max_batch_size: {shape.max_batch_size}
input [
  {{ name: "EMBEDDING" data_type: TYPE_FP32 dims: [ {shape.embedding_size} ] }},
  {{ name: "PROBABILITIES" data_type: TYPE_FP32 dims: [ {shape.network_classes} ] }},
  {{ name: "ERROR" data_type: TYPE_STRING dims: [ 1 ] }},
  {{ name: "FILE_BYTES" data_type: TYPE_INT64 dims: [ 1 ] optional: true }}
]
{_OUTPUTS % shape.embedding_size}
{_common(versions, count=1, kind="KIND_CPU")}"""


def _ensemble(shape: RepositoryShape, pinned: int) -> str:
    outputs = re.findall(r'name: "(\w+)"', _OUTPUTS)
    head_outputs = ",\n".join(f'      {{ key: "{name}" value: "{name}" }}' for name in outputs)
    return f"""name: "ensemble"
platform: "ensemble"
max_batch_size: {shape.max_batch_size}
input [
  {{ name: "IMAGE" data_type: TYPE_STRING dims: [ 1 ] }}
]
{_OUTPUTS % shape.embedding_size}
ensemble_scheduling {{
  step [
    {{
      model_name: "preprocess" model_version: {pinned}
      input_map {{ key: "IMAGE" value: "IMAGE" }}
      output_map [
        {{ key: "PIXELS" value: "pixels" }},
        {{ key: "ERROR" value: "decode_error" }},
        {{ key: "FILE_BYTES" value: "file_bytes" }}
      ]
    }},
    {{
      model_name: "classifier" model_version: {pinned}
      input_map {{ key: "PIXELS" value: "pixels" }}
      output_map [
        {{ key: "EMBEDDING" value: "embedding" }},
        {{ key: "PROBABILITIES" value: "probabilities" }}
      ]
    }},
    {{
      model_name: "cluster_head" model_version: {pinned}
      input_map [
        {{ key: "EMBEDDING" value: "embedding" }},
        {{ key: "PROBABILITIES" value: "probabilities" }},
        {{ key: "ERROR" value: "decode_error" }},
        {{ key: "FILE_BYTES" value: "file_bytes" }}
      ]
      output_map [
{head_outputs}
      ]
    }}
  ]
}}
"""


def _common(versions: list[int], *, count: int, kind: str, preferred_batch_size: int | None = None) -> str:
    preferred = "" if preferred_batch_size is None else f"\n  preferred_batch_size: [ {preferred_batch_size} ]"
    return f"""instance_group [ {{ count: {count} kind: {kind} }} ]
dynamic_batching {{{preferred}
  default_queue_policy {{
    max_queue_size: {MAX_QUEUE_SIZE} timeout_action: REJECT default_timeout_microseconds: {MAX_QUEUE_S * 1_000_000}
  }}
}}
version_policy: {{ specific {{ versions: {versions} }} }}
"""


def _parameters(**values: int) -> str:
    entries = ",\n".join(f'  {{ key: "{key}" value: {{ string_value: "{value}" }} }}' for key, value in values.items())
    return f"parameters [\n{entries}\n]\n"
