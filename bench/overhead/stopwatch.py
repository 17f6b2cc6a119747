"""Times steps of a model inside Triton's own process; it is laid into the model's folder and needs only Python.

The totals lie in a file that is mapped into memory, one for each process, so that reading them disturbs nobody.
"""

from __future__ import annotations

import functools
import importlib
import json
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CELL_BYTES = 8
CELLS_PER_STEP = 2  # nanoseconds before the answer, and of other threads
SETTINGS_FILE = (
    "stopwatch.json"  # beside this file: ``steps`` {step: ["module:name", ...]}, ``folder``, ``repetitions``
)


class Stopwatch:
    """Adds up the time of each step, without the time of steps inside it.

    The main thread's is the elapsed time; of other threads, which work beside the answers, it is the processor time.

    Args:
        file: The file for the totals, int64 [steps, 2].
        steps: Names of the steps.
    """

    def __init__(self, file: Path, steps: list[str]) -> None:
        self._steps = steps
        file.write_bytes(bytes(CELL_BYTES * CELLS_PER_STEP * len(steps)))
        with file.open("r+b") as opened:
            self._cells = memoryview(mmap.mmap(opened.fileno(), 0)).cast("q")
        self._running = threading.local()

    def time(self, step: str, target: str) -> None:
        """Time every call of a function or method as part of a step.

        Args:
            step: Name of the step.
            target: ``module:function`` or ``module:Class.method``; modules that imported the function are changed too.
        """
        module_name, _, path = target.partition(":")
        module = importlib.import_module(module_name)
        *outer, name = path.split(".")
        owner = functools.reduce(getattr, outer, module)
        function = getattr(owner, name)
        timed = self._timed(CELLS_PER_STEP * self._steps.index(step), function)
        setattr(owner, name, timed)
        for other in list(sys.modules.values()):
            if not outer and getattr(other, name, None) is function:
                setattr(other, name, timed)

    def _timed(self, cell: int, function: Callable[..., Any]) -> Callable[..., Any]:
        cells, running = self._cells, self._running

        def timed(*arguments: Any, **named: Any) -> Any:
            state = running.__dict__
            if not state:
                is_main = threading.current_thread() is threading.main_thread()
                state |= {
                    "inner": [0],
                    "clock": time.perf_counter_ns if is_main else time.thread_time_ns,
                    "offset": 0 if is_main else 1,
                }
            inner, clock = state["inner"], state["clock"]
            inner.append(0)
            began = clock()
            try:
                return function(*arguments, **named)
            finally:
                elapsed = clock() - began
                cells[cell + state["offset"]] += elapsed - inner.pop()
                inner[-1] += elapsed

        return timed


def start() -> int:
    """Time the steps that the settings beside this file name, in this process; return the number of repetitions."""
    settings = json.loads(Path(__file__).with_name(SETTINGS_FILE).read_text(encoding="utf-8"))
    stopwatch = Stopwatch(Path(settings["folder"]) / str(os.getpid()), list(settings["steps"]))
    for step, targets in settings["steps"].items():
        for target in targets:
            stopwatch.time(step, target)
    return int(settings["repetitions"])
