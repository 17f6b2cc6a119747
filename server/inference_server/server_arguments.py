"""The arguments that ``inference-server`` gives to tritonserver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from inference_export.repository.configs import ENSEMBLE, MODELS
from inference_server.addresses import LOOPBACK
from inference_server.triton.access import Access
from inference_server.triton.arguments import FORWARD_CLIENT_ID, body_limit, names_option

# Triton's options and the options of inference-server that set them.
OWN_OPTIONS = {
    "--model-repository": "--model_repository",
    "--model-store": "--model_repository",
    "--http-address": "--host",
    "--http-port": "--port",
    "--metrics-port": "--metrics_port",
}
# Triton's options that only supervision and reload-repository may set.
RESERVED_OPTIONS = (
    "--model-control-mode", "--load-model", "--allow-grpc", "--grpc-port", "--grpc-address",
    "--grpc-restricted-protocol",
)  # fmt: skip


def serving_arguments(
    repository: Path, *, host: str, port: int, metrics_port: int, arguments: Sequence[str]
) -> list[str]:
    """Return the user's arguments, with our defaults for all other options.

    Args:
        repository: The model repository.
        host: Address to listen on.
        port: HTTP port.
        metrics_port: Port of the metrics.
        arguments: The user's arguments.
    """
    option, pattern = FORWARD_CLIENT_ID
    defaults = {
        "--model-repository": str(repository),
        "--http-address": host,
        "--http-port": str(port),
        "--metrics-address": LOOPBACK,
        "--metrics-port": str(metrics_port),
        "--metrics-config": "summary_latencies=true",
        option: pattern,
    }
    ours = [f"{name}={value}" for name, value in defaults.items() if not names_option(arguments, name)]
    return [*ours, *arguments, *body_limit(arguments)]


def supervision_arguments(repository: Path, access: Access, memory_prefix: str) -> list[str]:
    """Return the arguments that supervision and reloads need.

    Args:
        repository: The model repository.
        access: The owner's access to the server.
        memory_prefix: Prefix of the names of the server's shared memory regions.
    """
    ours = {*MODELS, ENSEMBLE}
    others = any(entry.is_dir() and entry.name not in ours for entry in repository.iterdir())
    return [
        # Our configurations are complete; Triton would start a process for each model to complete them.
        *([] if others else ["--disable-auto-complete-config"]),
        "--model-control-mode=explicit",
        "--load-model=*",
        f"--grpc-address={LOOPBACK}",
        f"--grpc-port={access.grpc_port}",
        *access.restrictions(),
        *(
            f"--backend-config={backend},shm-region-prefix-name={memory_prefix}"
            for backend in ("python", "onnxruntime")
        ),
    ]
