"""The processes of tritonserver's Python models, as the kernel shows them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

STUB = "triton_python_backend_stub"
DEAD_STATES = frozenset("ZX")
STOPPED_STATES = frozenset("Tt")
# Positions in the stub's command line, as python_backend orders it.
_FILE_ARGUMENT, _NAME_ARGUMENT = 1, 8
# Fields behind the name in /proc/<pid>/stat. The ticks are those of the process and of its ended children.
_STATE, _TICKS = 0, slice(11, 15)


@dataclass(frozen=True, kw_only=True)
class ProcessState:
    """The state of a process at one moment.

    Attributes:
        state: The kernel's letter: R running, S sleeping, T stopped, Z dead and not yet waited for.
        cpu_ticks: Processor time since its start, with that of ended children, in the kernel's ticks.
    """

    state: str
    cpu_ticks: int


@dataclass(frozen=True, kw_only=True)
class ModelProcess:
    """A process of a Python model, or of a model whose backend is written in Python.

    Attributes:
        pid: Process id.
        model: The model's name.
        version: The model's version, as its folder is named.
        instance: Triton's name for the instance that it runs; the names are the same in all versions of a model.
    """

    pid: int
    model: str
    version: str
    instance: str


def read_state(pid: int) -> ProcessState | None:
    """Read the state of a process; None if it no longer exists."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name, in parentheses, may hold anything
    return ProcessState(state=fields[_STATE], cpu_ticks=sum(map(int, fields[_TICKS])))


def is_dead(pid: int) -> bool:
    """Tell whether a process has died without being waited for."""
    state = read_state(pid)
    return state is not None and state.state in DEAD_STATES


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped, for example by SIGSTOP or a debugger."""
    state = read_state(pid)
    return state is not None and state.state in STOPPED_STATES


def family_ticks(pid: int) -> int:
    """Return the processor time of a process and all its descendants since their start, in the kernel's ticks."""
    state = read_state(pid)
    return 0 if state is None else state.cpu_ticks + sum(map(family_ticks, child_processes(pid)))


def model_processes(server: int, models: frozenset[str]) -> list[ModelProcess]:
    """List the living processes of a tritonserver's models.

    Args:
        server: Process id of tritonserver.
        models: Names of the models.
    """
    processes = map(_model_process, child_processes(server))
    return [process for process in processes if process is not None and process.model in models]


def descendants(pid: int) -> list[int]:
    """List the children of a process, their children, and so on."""
    children = child_processes(pid)
    return [*children, *(each for child in children for each in descendants(child))]


def child_processes(parent: int) -> list[int]:
    """List the children of a process, the dead ones that it has not waited for among them."""
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
    instance = arguments[_NAME_ARGUMENT]
    return ModelProcess(
        pid=pid,
        model=instance.rsplit("_", 2)[0],  # model_<instance group>_<instance>
        version=Path(arguments[_FILE_ARGUMENT]).parent.name,
        instance=instance,
    )
