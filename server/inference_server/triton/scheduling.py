"""Chooses how the kernel schedules tritonserver."""

from __future__ import annotations

import contextlib
import os


def schedule_as_batch() -> None:
    """Have this thread, and the programs that it starts, scheduled by ``SCHED_BATCH``.

    A thread that wakes under this policy does not take the core from the thread that woke it. Triton needs that: after
    a batch, a model's thread wakes the batcher, and only then says that the model is free. A batcher that runs in
    between finds no free model, and lets requests wait for half a second or until the next one comes. This is what
    ``WaitForPayloadSlotAvailable`` does in Triton 2.51, and still in mid-2026, wherever a queue has a limit.

    Any other policy than the usual one stays as it is, and so does one that the system does not let us change.
    """
    if os.sched_getscheduler(0) == os.SCHED_OTHER:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
