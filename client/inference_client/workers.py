"""Threads that each own one resource, as many as there is work for at the same time.

``concurrent.futures.ThreadPoolExecutor`` is close, but tells no thread that it ends (a connection has to be closed in
the thread that used it), can't interrupt what a thread waits for, and is waited for at the interpreter's exit.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

STOP_TIMEOUT_S = 2.0


class InterruptedRequestError(BaseException):
    """Raised in a worker's task that is no longer wanted; no ``except Exception`` on the way may keep it."""


class Resource(Protocol):
    """What a worker thread owns."""

    def begin(self) -> None:
        """Start a task, in the owning thread: an interruption of the task before no longer counts."""

    def interrupt(self) -> None:
        """Make the current task raise InterruptedRequestError soon; called from other threads."""

    def close(self) -> None:
        """Let go of everything, in the owning thread."""


R = TypeVar("R", bound=Resource)
T = TypeVar("T")


class _Task(Generic[R]):
    def __init__(self, run: Callable[[R], Any]) -> None:
        self.run = run
        self.future: Future[Any] = Future()


class _Worker(Generic[R]):
    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.resource: R | None = None
        self.task: _Task[R] | None = None
        self.interrupted = False

    def interrupt(self) -> None:
        self.interrupted = True
        if self.resource is not None:
            self.resource.interrupt()


class _Shared(Generic[R]):
    """What the pool and its threads share: the threads must not keep the pool itself alive."""

    def __init__(self, open_resource: Callable[[], R]) -> None:
        self.open_resource = open_resource
        self.closed = False
        self.forget_threads()

    def forget_threads(self) -> None:
        self.lock = threading.Lock()
        self.tasks: SimpleQueue[_Task[R] | None] = SimpleQueue()
        self.idle = 0
        self.workers: set[_Worker[R]] = set()


_all_shared: "weakref.WeakSet[_Shared[Any]]" = weakref.WeakSet()


def _forget_threads_after_fork() -> None:
    # Only the forking thread lives on in the child.
    for shared in list(_all_shared):
        shared.forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads_after_fork)


class WorkerPool(Generic[R]):
    """Runs tasks in threads, each with a resource of its own.

    A thread is started whenever a task finds none idle, so that tasks never wait for each other. The threads end when
    the pool is closed or collected, and at the interpreter's exit, which they never delay by more than
    ``STOP_TIMEOUT_S``.

    Args:
        open_resource: Makes one thread's resource, in that thread; must not refer to the pool.
        name: Of the threads.
    """

    def __init__(self, open_resource: Callable[[], R], *, name: str) -> None:
        self._shared = _Shared(open_resource)
        self._name = name
        _all_shared.add(self._shared)
        self._stop = weakref.finalize(self, _stop, self._shared)

    @property
    def closed(self) -> bool:
        """Whether the pool takes no more tasks."""
        return self._shared.closed

    def submit(self, run: Callable[[R], T]) -> "Future[T]":
        """Run a task in a thread of the pool.

        Args:
            run: Called with the thread's resource.

        Returns:
            Its outcome, soon.

        Raises:
            RuntimeError: The pool is closed.
        """
        shared = self._shared
        task = _Task(run)
        with shared.lock:
            if shared.closed:
                raise RuntimeError("the worker pool is closed")
            if shared.idle:
                shared.idle -= 1
            else:
                worker: _Worker[R] = _Worker()
                # A daemon, since the exit of the interpreter stops it through weakref.finalize.
                worker.thread = threading.Thread(target=_work, args=(shared, worker), name=self._name, daemon=True)
                worker.thread.start()
                shared.workers.add(worker)
            shared.tasks.put(task)
        return task.future

    def cancel(self, future: "Future[Any]") -> None:
        """Make a task that is no longer wanted end soon, whether it is running or not."""
        with self._shared.lock:
            if future.cancel():
                return
            for worker in self._shared.workers:
                if worker.task is not None and worker.task.future is future:
                    worker.interrupt()

    def close(self) -> None:
        """End the threads; a task in flight ends with InterruptedRequestError. Repeated calls do nothing."""
        self._stop()


def _stop(shared: _Shared[Any]) -> None:
    with shared.lock:
        shared.closed = True
        workers = list(shared.workers)
        while not shared.tasks.empty():
            task = shared.tasks.get()
            if task is not None:
                task.future.cancel()
        for worker in workers:
            if worker.task is not None:
                worker.interrupt()
            shared.tasks.put(None)
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    for worker in workers:
        # The garbage collector may run this in any thread, a worker included.
        if worker.thread is not None and worker.thread is not threading.current_thread():
            worker.thread.join(max(0.0, deadline_s - time.monotonic()))


def _work(shared: _Shared[R], worker: _Worker[R]) -> None:
    try:
        while (task := shared.tasks.get()) is not None:
            _run(task, shared, worker)
            del task  # its images and its outcome are not kept while waiting for the next
    finally:
        with shared.lock:
            shared.workers.discard(worker)
            resource, worker.resource = worker.resource, None
        if resource is not None:
            resource.close()


def _run(task: _Task[R], shared: _Shared[R], worker: _Worker[R]) -> None:
    outcome, error = None, None
    with shared.lock:
        wanted = task.future.set_running_or_notify_cancel()
        if wanted:
            worker.task, worker.interrupted = task, False
            if worker.resource is not None:
                worker.resource.begin()
    if wanted:
        try:
            outcome = task.run(_open(shared, worker))
        except BaseException as raised:
            error = raised
    with shared.lock:
        worker.task = None
        shared.idle += 1
    if wanted and error is None:
        task.future.set_result(outcome)
    elif wanted:
        task.future.set_exception(error)
        error = None  # else it and this frame would keep each other alive


def _open(shared: _Shared[R], worker: _Worker[R]) -> R:
    if worker.resource is None:
        resource = shared.open_resource()
        with shared.lock:
            worker.resource = resource
    with shared.lock:
        if worker.interrupted:
            raise InterruptedRequestError
    return worker.resource
