"""The processes in which tritonserver runs Python models, as the kernel shows them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

STUB = "triton_python_backend_stub"
DEAD_STATES = frozenset("ZX")
STOPPED_STATES = frozenset("Tt")
# What the stub's command line says where; python_backend's own order.
_FILE_ARGUMENT, _NAME_ARGUMENT = 1, 8
# In /proc/<pid>/stat, behind the name: a process's own time, and that of its children which have ended.
_STATE, _TICKS = 0, slice(11, 15)


@dataclass(frozen=True, kw_only=True)
class ProcessState:
    """What a process does just now.

    Args:
        state: The kernel's letter: R running, S sleeping, T stopped, Z dead and not yet waited for.
        cpu_ticks: Processor time since its start, of children that have ended too, in the kernel's ticks.
    """

    state: str
    cpu_ticks: int


@dataclass(frozen=True, kw_only=True)
class ModelProcess:
    """A process of a Python model, or of a model whose backend is written in Python.

    Args:
        pid: Its number.
        model: The model's name.
        version: The model's version that it runs, as its folder is named.
    """

    pid: int
    model: str
    version: str


def read_state(pid: int) -> ProcessState | None:
    """Look at a process; None where there is none any more."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return ProcessState(state=fields[_STATE], cpu_ticks=sum(map(int, fields[_TICKS])))


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped, as by SIGSTOP or a debugger."""
    state = read_state(pid)
    return state is not None and state.state in STOPPED_STATES


def family_ticks(pid: int) -> int:
    """Return the processor time of a process and all its descendants since their start, in the kernel's ticks."""
    state = read_state(pid)
    return 0 if state is None else state.cpu_ticks + sum(map(family_ticks, _children(pid)))


def model_processes(server: int, models: frozenset[str]) -> list[ModelProcess]:
    """List the living processes of a tritonserver's models.

    Args:
        server: Process id of tritonserver.
        models: Names of the models that are looked for.
    """
    candidates = map(_model_process, _children(server))
    return [each for each in candidates if each is not None and each.model in models]


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


def _model_process(pid: int) -> ModelProcess | None:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
    except OSError:
        return None
    if Path(arguments[0]).name != STUB or len(arguments) <= _NAME_ARGUMENT:
        return None
    return ModelProcess(
        pid=pid,
        model=arguments[_NAME_ARGUMENT].rsplit("_", 2)[0],  # model_<instance group>_<instance>
        version=Path(arguments[_FILE_ARGUMENT]).parent.name,
    )
