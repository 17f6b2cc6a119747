"""Triton's arguments: those that the user gives, and those that this package adds."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

from inference_client.settings import CLIENT_ID_HEADER
from inference_server.addresses import LOOPBACK
from inference_server.triton.binary import find_installed_binary

# Forwards only the header with the client's id, in any case.
FORWARD_CLIENT_ID = ("--http-header-forward-pattern", f"(?i)^{CLIENT_ID_HEADER.lower()}$")
# APIs that are closed to strangers, and the names of the key in an HTTP header and in gRPC metadata.
CLOSED_APIS = ("model-repository", "logging", "trace", "shared-memory")
HTTP_KEY_HEADER, GRPC_KEY_NAME = "X-Admin-Key", "admin-key"
RESTRICT_HTTP, RESTRICT_GRPC = "--http-restricted-api", "--grpc-restricted-protocol"
# Triton has this option from 25.06 on. The limit is the gateway's: an image file of 64 MiB in base64, and some JSON.
# Binary tensors are not counted, in any release.
LIMIT_BODIES = "--http-max-input-size"
MAX_BODY_BYTES = 96 << 20
_ADDRESS_OPTIONS = ("--http-address", "--grpc-address", "--metrics-address")
_GPU_DRIVER = Path("/dev/nvidiactl")
_SHORTEST_OPTION = len("--x")


def names_option(arguments: Sequence[str], option: str) -> bool:
    """Tell whether arguments set an option: as ``--option value`` or ``--option=value``, perhaps abbreviated."""
    names = (argument.partition("=")[0] for argument in arguments)
    return any(len(name) >= _SHORTEST_OPTION and option.startswith(name) for name in names)


def option_value(arguments: Sequence[str], option: str) -> str:
    """Return the last value that arguments give an option, in the forms of ``names_option``; "" without one.

    >>> option_value(["--metrics-a", "10.0.0.11", "--log-verbose=1"], "--metrics-address")
    '10.0.0.11'
    """
    value = ""
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        name, is_joined, joined = argument.partition("=")
        if names_option([name], option):
            value = joined if is_joined else following
    return value


def added_arguments(arguments: Sequence[str]) -> list[str]:
    """List the arguments that pip's tritonserver gets in addition to the user's.

    Args:
        arguments: The user's arguments.

    Returns:
        Arguments for loopback addresses, the forwarding of client ids and the closing of ``CLOSED_APIS``, except the
        options that the user sets.
    """
    options = {
        **dict.fromkeys(_ADDRESS_OPTIONS, LOOPBACK),
        **dict([FORWARD_CLIENT_ID]),
        **restrictions(secrets.token_urlsafe()),  # a key that nobody knows
        **({} if _GPU_DRIVER.exists() else {"--allow-gpu-metrics": "false"}),  # Triton would log an error
    }
    return [f"{option}={value}" for option, value in options.items() if not names_option(arguments, option)]


def describe(added: Sequence[str]) -> list[str]:
    """Describe the result of ``added_arguments`` to the user, without its keys."""
    restricting = (RESTRICT_HTTP, RESTRICT_GRPC)
    shown = [argument for argument in added if not argument.startswith(restricting)]
    closed = [option for option in restricting if any(argument.startswith(option) for argument in added)]
    return [
        *([f"added {' '.join(shown)}"] if shown else []),
        *([f"closed {', '.join(CLOSED_APIS)}; to use them, set a key with {' or '.join(closed)}"] if closed else []),
    ]


def restrictions(key: str) -> dict[str, str]:
    """Return the options and values that close ``CLOSED_APIS`` to callers without the key."""
    apis = ",".join(CLOSED_APIS)
    return {RESTRICT_HTTP: f"{apis}:{HTTP_KEY_HEADER}={key}", RESTRICT_GRPC: f"{apis}:{GRPC_KEY_NAME}={key}"}


def body_limit(arguments: Sequence[str]) -> list[str]:
    """Return the argument that limits request bodies, unless ``arguments`` set it or the binary lacks the option."""
    binary = find_installed_binary()  # pip's tritonserver is older than the option
    if binary is None or names_option(arguments, LIMIT_BODIES):
        return []
    help_text = subprocess.run([binary, "--help"], capture_output=True, check=False)
    is_known = LIMIT_BODIES.encode() in help_text.stdout + help_text.stderr
    return [f"{LIMIT_BODIES}={MAX_BODY_BYTES}"] if is_known else []
