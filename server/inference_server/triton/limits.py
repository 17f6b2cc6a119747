"""Raises limits of the operating system for tritonserver."""

from __future__ import annotations

import resource

from inference_server.errors import ServerError

# Each connection takes one open file. When none is left, Triton accepts no connection and logs that without end.
LEAST_OPEN_FILES = 4096
# On a stack of the usual size, a form-encoded body of half that size crashes Triton.
STACK_BYTES = 2**30


def raise_open_files_limit() -> None:
    """Raise the limit of open files to the hard limit, for this process and the programs that it starts.

    Raises:
        ServerError: The hard limit is less than ``LEAST_OPEN_FILES``.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < LEAST_OPEN_FILES:
        raise ServerError(
            f"at most {hard} files may be open here. Triton needs {LEAST_OPEN_FILES}, one for each connection. Raise "
            f"the hard limit: LimitNOFILE= of systemd, --ulimit nofile= of Docker, or ulimit -n as root."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def raise_stack_limit() -> None:
    """Raise the stack size up to ``STACK_BYTES`` for the threads of programs that this process starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    wanted = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (wanted, hard))
