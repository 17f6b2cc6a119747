"""Threads that each own one resource, as many as there is work for at the same time.

``concurrent.futures.ThreadPoolExecutor`` is close, but tells no thread that it ends (a connection has to be closed in
the thread that used it), can't interrupt what a thread waits for, and is waited for at the interpreter's exit.
"""

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, Generic, Protocol, TypeVar

STOP_TIMEOUT_S = 2.0
# A signal that arrives just before Python waits for a lock is handled only after that wait.
LONGEST_WAIT_S = 0.25


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
        # Reentrant, since a signal handler or the garbage collector may close the pool in a thread that holds it.
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.tasks: deque[_Task[R]] = deque()
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
            Its outcome, soon; InterruptedRequestError if the pool is closed meanwhile.

        Raises:
            RuntimeError: The pool is closed.
        """
        shared = self._shared
        task = _Task(run)
        with shared.lock:
            if shared.idle <= len(shared.tasks) and not shared.closed:
                self._start_worker()
            shared.tasks.append(task)
            # Only now, since a signal handler may close the pool between any two lines.
            if shared.closed:
                shared.tasks.clear()
                raise RuntimeError("the worker pool is closed")
            shared.changed.notify()
        return task.future

    def _start_worker(self) -> None:
        worker: _Worker[R] = _Worker()
        # A daemon, since the exit of the interpreter stops it through weakref.finalize.
        worker.thread = threading.Thread(target=_work, args=(self._shared, worker), name=self._name, daemon=True)
        self._shared.workers.add(worker)
        try:
            worker.thread.start()
        except RuntimeError:  # the system has no more threads
            self._shared.workers.discard(worker)
            raise

    def cancel(self, future: "Future[Any]") -> None:
        """Make a task that is no longer wanted end soon, whether it is running or not."""
        with self._shared.lock:
            if future.cancel():
                return
            for worker in self._shared.workers:
                if worker.task is not None and worker.task.future is future:
                    worker.interrupt()

    def close(self) -> None:
        """End all tasks at once with InterruptedRequestError, and then the threads. Repeated calls do nothing.

        A thread that can't be interrupted, for example while it reads a file, ends after its task; this call waits for
        it no longer than ``STOP_TIMEOUT_S``.
        """
        self._stop()


def outcome_of(future: "Future[T]") -> T:
    """Wait for a task, in a way that Ctrl-C always ends, and return or raise its outcome."""
    while not wait([future], LONGEST_WAIT_S).done:
        pass
    return future.result()


def _stop(shared: _Shared[Any]) -> None:
    with shared.lock:
        shared.closed = True
        workers = list(shared.workers)
        unfinished = [task.future for task in shared.tasks if task.future.set_running_or_notify_cancel()]
        shared.tasks.clear()
        for worker in workers:
            if worker.task is not None:
                unfinished.append(worker.task.future)
                worker.task = None
                worker.interrupt()
        shared.changed.notify_all()
    for future in unfinished:
        future.set_exception(InterruptedRequestError())
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    for worker in workers:
        # The garbage collector may run this in any thread, a worker included.
        if worker.thread is not None and worker.thread is not threading.current_thread() and worker.thread.is_alive():
            worker.thread.join(max(0.0, deadline_s - time.monotonic()))


def _work(shared: _Shared[R], worker: _Worker[R]) -> None:
    with shared.lock:
        shared.idle += 1
    try:
        while (task := _take(shared, worker)) is not None:
            _run(task, shared, worker)
            del task  # its images and its outcome are not kept while waiting for the next
    finally:
        with shared.lock:
            shared.workers.discard(worker)
            resource, worker.resource = worker.resource, None
        if resource is not None:
            resource.close()


def _take(shared: _Shared[R], worker: _Worker[R]) -> _Task[R] | None:
    with shared.lock:
        while not shared.closed:
            if not shared.tasks:
                shared.changed.wait()
                continue
            task = shared.tasks.popleft()
            if task.future.set_running_or_notify_cancel():
                shared.idle -= 1
                worker.task, worker.interrupted = task, False
                if worker.resource is not None:
                    worker.resource.begin()
                return task
        return None


def _run(task: _Task[R], shared: _Shared[R], worker: _Worker[R]) -> None:
    outcome, error = None, None
    try:
        outcome = task.run(_open(shared, worker))
    except BaseException as raised:
        error = raised
    with shared.lock:
        wanted = worker.task is task  # else closing has ended it
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
