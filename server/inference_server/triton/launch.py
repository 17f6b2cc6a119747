"""Prepares the start of tritonserver: a native one as it is, or pip's with its backends and environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from inference_client.command_line.extras import require_extras
from inference_server.triton.arguments import added_arguments, describe, names_option
from inference_server.triton.backend_directory import assemble_backends
from inference_server.triton.binary import find_installed_binary
from inference_server.triton.pip_package import (
    PIP_PACKAGES,
    environment,
    pytriton_folder,
    require_numpy_1,
    require_platform,
)


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A program to execute.

    Attributes:
        arguments: The program's path and its arguments.
        environment: Its environment variables.
        notes: Our additions to the user's arguments, in words.
    """

    arguments: list[str]
    environment: dict[str, str]
    notes: list[str]


def prepare_launch(arguments: Sequence[str], *, extras: Sequence[str] = ("server",)) -> Launch:
    """Find a tritonserver and prepare its start.

    Args:
        arguments: Triton's own arguments.
        extras: Extras that must be installed if there is no native tritonserver, ``server`` among them.

    Returns:
        The native tritonserver in the container's usual path or on PATH, with the arguments as they are; otherwise
        nvidia-pytriton's, with a backend directory and the result of ``added_arguments``.

    Raises:
        ServerError: Pip's tritonserver does not suit the platform, Python or numpy, or lacks a library.
        MissingExtraError: There is no native tritonserver, and an extra is not installed.
    """
    installed = find_installed_binary()
    if installed is not None:
        return Launch(arguments=[str(installed), *arguments], environment=dict(os.environ), notes=[])
    require_platform()
    require_extras(*extras, also=PIP_PACKAGES)
    require_numpy_1()
    pytriton = pytriton_folder()
    triton = pytriton / "tritonserver"
    added = added_arguments(arguments)
    command = [str(triton / "bin" / "tritonserver"), *arguments, *added]
    if not names_option(arguments, "--backend-directory"):
        command += ["--backend-directory", str(assemble_backends(triton))]
    return Launch(arguments=command, environment=environment(pytriton), notes=describe(added))
