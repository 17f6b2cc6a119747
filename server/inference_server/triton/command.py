"""The command ``tritonserver``: finds the real tritonserver, prepares its start, and becomes it."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from inference_client.command_line.extras import MissingExtraError
from inference_client.settings import CLIENT_ID_HEADER
from inference_export.repository.configs import CONFIG_FILE, ENSEMBLE
from inference_export.repository.versions import exported_version
from inference_server.addresses import LOOPBACK
from inference_server.errors import ServerError
from inference_server.triton.arguments import CLOSED_APIS, RESTRICT_GRPC, RESTRICT_HTTP
from inference_server.triton.binary import CONTAINER_BINARY, find_installed_binary
from inference_server.triton.launch import prepare_launch
from inference_server.triton.limits import raise_open_files_limit, raise_stack_limit
from inference_server.triton.missing_gpu import HARMLESS, has_gpu
from inference_server.triton.scheduling import schedule_as_batch
from inference_server.triton.standard_streams import open_standard_streams

REPOSITORY_OPTIONS = ("--model-repository", "--model-store")
HELP = f"""Usage: tritonserver [TRITON_OPTION...]

  Run NVIDIA's tritonserver: the one at {CONTAINER_BINARY}
  or on PATH, with the options as they are; otherwise the one that
  nvidia-pytriton installs.

  That one also gets two backends (Python, and ONNX Runtime in Python) and
  forwards the header {CLIENT_ID_HEADER} to the models. It serves HTTP (port
  8000), gRPC (8001) and metrics (8002) on {LOOPBACK} unless you set other
  addresses. Its APIs for {", ".join(CLOSED_APIS[:-1])} and {CLOSED_APIS[-1]}
  are closed unless you set a key with {RESTRICT_HTTP} or
  {RESTRICT_GRPC}.

  Example:
    tritonserver --model-repository model_repository

Triton's own help:
"""


def main() -> NoReturn:
    """Become tritonserver, with this process's arguments."""
    open_standard_streams()
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(HELP, flush=True)  # noqa: T201
        arguments = ["--help"]
    try:
        launch = prepare_launch(arguments)
        if find_installed_binary() is None:
            _require_export(arguments)
        raise_open_files_limit()
    except (ServerError, MissingExtraError) as error:
        sys.exit(f"tritonserver: {error}")
    for note in (*launch.notes, *(() if has_gpu() else (HARMLESS,))):
        print(f"tritonserver: {note}", file=sys.stderr, flush=True)  # noqa: T201
    raise_stack_limit()
    schedule_as_batch()
    os.execve(launch.arguments[0], launch.arguments, launch.environment)  # noqa: S606


def _require_export(arguments: Sequence[str]) -> None:
    """Refuse our template without an export: Triton would only say that it can't load the models."""
    for argument, following in itertools.pairwise([*arguments, ""]):
        option, _, value = argument.partition("=")
        repository = Path(value or following)
        ours = repository / ENSEMBLE / CONFIG_FILE
        if option in REPOSITORY_OPTIONS and ours.is_file() and exported_version(repository) is None:
            raise ServerError(f"{repository} holds no export yet. Run export-repository -r RESOURCES first.")


if __name__ == "__main__":
    main()
