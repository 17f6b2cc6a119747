"""An event loop in a thread of its own, for callers that block."""

import asyncio
import os
import threading
from collections.abc import Callable, Collection, Coroutine, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, TypeVar

from inference_client.calls import Requests
from inference_client.settings import Settings
from inference_client.transport import Answer, Transport

STOP_TIMEOUT_S = 2.0
# If a signal arrives just before Python waits for a lock, Python handles the signal only after that wait.
LONGEST_WAIT_S = 0.25

T = TypeVar("T")


class StoppedError(Exception):
    """The event loop was stopped, with everything in flight."""


class Background:
    """One event loop thread for each process that uses a client: made on first use, and again after a fork.

    Args:
        settings: How the server is reached.

    Attributes:
        closed: Whether ``close`` was called.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.closed = False
        self._threads: dict[int, LoopThread] = {}  # by process id

    def thread(self) -> "LoopThread":
        """Return this process's thread.

        Raises:
            StoppedError: It is closed.
        """
        self.require_open()
        process = os.getpid()
        thread = self._threads.get(process)
        if thread is None:
            # No lock, because a child process could inherit it locked. If two threads make one each, only one is kept.
            made = LoopThread(self._settings)
            thread = self._threads.setdefault(process, made)
            if thread is not made:
                made.stop()
        if self.closed:
            thread.stop()
        self.require_open()
        return thread

    def require_open(self) -> None:
        """Raise StoppedError if it is closed."""
        if self.closed:
            raise StoppedError

    def close(self) -> None:
        """Stop the threads. Any thread or signal handler may call this, any number of times."""
        self.closed = True
        for thread in list(self._threads.values()):
            thread.stop()


class LoopThread:
    """Runs an event loop with a transport, for the threads of one process.

    Args:
        settings: How the server is reached.
    """

    def __init__(self, settings: Settings) -> None:
        self.transport = Transport(settings)
        self._process = os.getpid()
        self._loop = _new_event_loop()
        self._stopping = asyncio.Event()
        self._stopped = False
        # Reentrant: a signal handler or the garbage collector may stop the loop in a thread that holds the lock.
        self._lock = threading.RLock()
        # A daemon: at exit, weakref.finalize stops it.
        self._thread = threading.Thread(target=self._run, name="inference_client", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[..., Coroutine[Any, Any, T]], /, *arguments: Any) -> "Future[T]":
        """Run ``function(*arguments)`` in the event loop.

        Returns:
            The future; cancelling it cancels the coroutine.

        Raises:
            StoppedError: The loop was stopped.
            RuntimeError: The process was forked.
        """
        self._check()
        with self._lock:  # the loop can't be told to stop before the coroutine has begun
            self._check()
            return asyncio.run_coroutine_threadsafe(function(*arguments), self._loop)

    def run(self, function: Callable[..., Coroutine[Any, Any, T]], /, *arguments: Any) -> T:
        """Run ``function(*arguments)`` in the event loop, and wait for its result.

        Raises:
            StoppedError: The loop was stopped.
        """
        future = self.submit(function, *arguments)
        try:
            self._wait([future])
            return future.result()
        except CancelledError:
            raise StoppedError from None
        finally:
            self._cancel([future])

    def drive(self, requests: Requests) -> Iterator[Answer]:
        """Send requests that use this thread's ``transport`` and ``submit``.

        Yields:
            The answers, in order.

        Raises:
            StoppedError: The loop was stopped.
            RuntimeError: The process was forked.
            RequestError: The server's batch limit could not be read.
            Exception: What the images' source raised.
        """
        try:
            for step in requests.steps():
                if isinstance(step, Answer):
                    yield step
                    self._check()
                else:
                    self._wait(step)
        except CancelledError:
            raise StoppedError from None
        finally:
            self._cancel(requests.in_flight)

    def stop(self) -> None:
        """Cancel all coroutines and end the thread, within ``STOP_TIMEOUT_S``. In a forked child, do nothing."""
        if self._process != os.getpid():
            return
        with self._lock:
            self._stopped = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._stopping.set)
        # The garbage collector may run this in any thread.
        if self._thread is not threading.current_thread():
            self._thread.join(STOP_TIMEOUT_S)

    def _wait(self, futures: Collection[Any]) -> None:
        self._check()
        while not wait(futures, LONGEST_WAIT_S, FIRST_COMPLETED).done:
            self._check()
        self._check()

    def _cancel(self, futures: Collection[Any]) -> None:
        # In a forked child the futures' locks may be held for ever.
        if self._process == os.getpid():
            for future in futures:
                future.cancel()

    def _check(self) -> None:
        if self._process != os.getpid():
            raise RuntimeError(
                "the process was forked while these images were being classified, and their answers go to its parent: "
                "classify them anew in the child"
            )
        if self._stopped:
            raise StoppedError

    def _run(self) -> None:
        # Not asyncio.Runner, which starts a thread when it closes: at exit, CPython 3.12 starts none.
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        await self._stopping.wait()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.transport.close()


class _DaemonThreads(ThreadPoolExecutor):
    """Runs each function in a thread that nothing waits for at exit: a file system or name server may hang."""

    def submit(self, function: Callable[..., T], /, *arguments: Any, **options: Any) -> "Future[T]":
        future: Future[T] = Future()

        def run() -> None:
            try:
                result = function(*arguments, **options)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        future.set_running_or_notify_cancel()
        threading.Thread(target=run, name="inference_client reading", daemon=True).start()
        return future


def _new_event_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_default_executor(_DaemonThreads())
    return loop
