"""The processes in which tritonserver runs Python models, as the kernel shows them."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

STUB = "triton_python_backend_stub"
DEAD_STATES = frozenset("ZX")
STOPPED_STATES = frozenset("Tt")
# What the stub's command line says where; python_backend's own order.
_NAME_ARGUMENT = 8
_STATE, _PARENT, _USER_TICKS, _SYSTEM_TICKS = 0, 1, 11, 12  # in /proc/<pid>/stat, behind the name


@dataclass(frozen=True, kw_only=True)
class ProcessState:
    """What a process does just now.

    Args:
        state: The kernel's letter: R running, S sleeping, T stopped, Z dead and not yet waited for.
        cpu_ticks: Processor time since its start, in the kernel's ticks.
    """

    state: str
    cpu_ticks: int


@dataclass(frozen=True, kw_only=True)
class ModelProcess:
    """A process of a Python model, or of a model whose backend is written in Python.

    Args:
        pid: Its number.
        model: The model's name.
    """

    pid: int
    model: str


def read_state(pid: int) -> ProcessState | None:
    """Look at a process; None where there is none any more."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return ProcessState(state=fields[_STATE], cpu_ticks=int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS]))


def model_processes(server: int, models: frozenset[str]) -> list[ModelProcess]:
    """List the living processes of a tritonserver's models.

    Args:
        server: Process id of tritonserver.
        models: Names of the models that are looked for.
    """
    found = []
    for pid in _children(server):
        model = _model_of(pid, models)
        if model is not None:
            found.append(ModelProcess(pid=pid, model=model))
    return found


def dead_children(server: int) -> set[int]:
    """List the processes that a tritonserver started, that have died, and that it has not waited for."""
    states = {pid: read_state(pid) for pid in _children(server)}
    return {pid for pid, state in states.items() if state is not None and state.state in DEAD_STATES}


def _children(parent: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{parent}/task").iterdir():
            with contextlib.suppress(OSError):
                children += map(int, (task / "children").read_text(encoding="ascii").split())
    return children


def _model_of(pid: int, models: frozenset[str]) -> str | None:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    if os.path.basename(arguments[0]) != STUB.encode() or len(arguments) <= _NAME_ARGUMENT:  # noqa: PTH119
        return None
    # model_<instance group>_<instance>
    name = arguments[_NAME_ARGUMENT].decode(errors="replace").rsplit("_", 2)[0]
    return name if name in models else None
