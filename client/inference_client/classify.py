"""The class that callers use."""

import math
import os
import threading
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from functools import partial
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from inference_client.errors import StreamError
from inference_client.images import Image, ImageInput, collect, collect_lazily
from inference_client.settings import read_settings
from inference_client.workers import InterruptedRequestError, WorkerPool, outcome_of

if TYPE_CHECKING:
    from inference_client.calls import Options
    from inference_client.transport import Connection

Results: TypeAlias = list[dict[str, Any]] | dict[str, str]

_CLOSED = "this Classify is closed: make a new one, Classify({url!r})"


class Classify:
    """An inference server that classifies images.

    Any number of threads may call one ``Classify`` at the same time. It is a context manager, and ``close()`` ends its
    connections; without either they end with the program.

    Args:
        url: ``http://host:port``, ``host:port`` or ``https://host:port``, a base path may follow. No connection is
            opened yet.
        timeout_s: Deadline of each request with its retries, seconds, finite and > 0. A long list is several requests.
            Sent again is what an overloaded server refused, and, once it has answered, what was lost because it, or one
            of its model processes, was being restarted.
        connect_timeout_s: Deadline of opening a connection, seconds, finite and > 0.
        sim_thres: Lowest cosine similarity at which a base image is a match, -1 to 1; None leaves it to the server,
            which also refuses a value out of range.
        details: Whether each entry also has the evidence for its label.
        client_id: Who is asking, for the server's metrics; sent as ``X-Client-Id``, printable ASCII.
        api_key: Sent as ``X-API-Key``, printable ASCII.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is wrong; the message says what to give instead.

    Examples:
        >>> target_server = Classify("http://localhost:8080")
        >>> target_server([])
        ([], 200)
        >>> target_server.close()
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 60,
        connect_timeout_s: float = 5,
        sim_thres: float | None = None,
        details: bool = False,
        client_id: str | None = None,
        api_key: str | None = None,
    ) -> None:
        # Here, so that importing this module is quick; and not in a worker, since gevent takes the thread that imports
        # it for the program's main one.
        from inference_client.transport import Connection

        self._settings = read_settings(
            url, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s, client_id=client_id, api_key=api_key
        )
        self._sim_thres = _threshold_text(sim_thres)
        self._details = details
        self._pool: WorkerPool[Connection] = WorkerPool(
            partial(Connection, self._settings, threading.Event()), name="inference_client"
        )
        self._limit_lock = threading.Lock()
        self._max_batch_size: int | None = None
        self._reading_limit: Future[int] | None = None
        _all_classify.add(self)

    def __call__(
        self,
        images: ImageInput | Iterable[ImageInput],
        *,
        sim_thres: float | None = None,
        details: bool | None = None,
        progress: Callable[[int], object] | None = None,
    ) -> tuple[Results, int]:
        """Classify images.

        Args:
            images: A path, the bytes of an image file, a PIL image, a uint8 array [height, width, 3] in RGB order, or a
                list of these. Files are sent as they are on disk.
            sim_thres: As in the constructor, for this call.
            details: As in the constructor, for this call.
            progress: Told, in the calling thread, how many more images are finished: classified, undecodable or failed.

        Returns:
            ``(results, status_code)``. If anything was answered, ``results`` is a list with one entry per image, in
            order: ``{'Label': str, 'Probability': float}``, or ``{'Label': None, 'Probability': None, 'Error':
            reason}``. ``details`` adds ``Scores`` {class: similarity or probability}, ``Matches`` {class: number},
            empty without a base set, and ``Neighbors`` [{'Image': 'class/file', 'Similarity': float}], best first.
            Otherwise it is ``{'error': message}``. ``status_code`` is

            * 200: every image is classified, also an empty list's,
            * 207: some images are undecodable, or some requests of a long list failed,
            * 400: every image is undecodable; with ``{'error': ...}`` the request was refused,
            * 503, 504: overloaded or unreachable; too slow,
            * another: as the server answered, 401 or 403 for an API key.

        Raises:
            OSError: A path can't be read, FileNotFoundError for one; raised before anything is sent.
            TypeError: Not an image; the message shows what to pass.
            ValueError: An array of another shape, or a file that is not a regular one.
            RuntimeError: It is closed, or was closed during the call; or the process was forked by ``progress``.
        """
        from inference_client.calls import Call
        from inference_client.failures import RequestError

        options = self._options(sim_thres=sim_thres, details=details)
        collected = collect(images)
        self._require_open()
        if not collected:
            return [], 200
        try:
            limit = self._images_per_request() if len(collected) > 1 else 1
            return Call(self._pool, collected, max_images=limit, options=options, progress=progress).run()
        except RequestError as failure:
            return {"error": failure.message}, failure.status
        except (InterruptedRequestError, RuntimeError):
            self._require_open()
            raise

    def stream(
        self, images: Iterable[ImageInput], *, sim_thres: float | None = None, details: bool | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """Classify any number of images, in bounded memory.

        Images are taken from the iterable as results are taken from here, in the same thread, at most 16 requests of
        them ahead. Closing the generator, or leaving a loop over it and letting go of it, breaks off what is in flight.

        Args:
            images: As many as you like, each as a call takes it; an iterator or generator is read once.
            sim_thres: As in the constructor, for this stream.
            details: As in the constructor, for this stream.

        Yields:
            Each image's entry, in order, as a call's list has it: with ``Error`` also for a path that can't be read, an
            array of another shape, and an image whose request failed.

        Raises:
            TypeError: Not an iterable of images; or not an image, raised after the results of those before it, as
                whatever else the iterable raises.
            StreamError: The server is gone, refuses the first request, or has failed 8 requests in a row. No result is
                given for the images from there on; those before it have theirs.
            RuntimeError: It is closed, or was closed meanwhile; or the process was forked, and this is the child.
        """
        options = self._options(sim_thres=sim_thres, details=details)
        collected = collect_lazily(images)
        self._require_open()
        return self._stream(collected, options)

    def _stream(self, images: Iterator[Image], options: "Options") -> Generator[dict[str, Any], None, None]:
        from inference_client.calls import Stream
        from inference_client.failures import RequestError

        for first in images:  # none: nothing is asked
            try:
                limit = self._images_per_request()
                yield from Stream(self._pool, chain([first], images), max_images=limit, options=options).entries()
            except RequestError as failure:
                raise StreamError(failure.message, failure.status) from None
            except (InterruptedRequestError, RuntimeError):
                self._require_open()
                raise

    def close(self) -> None:
        """End all connections, from any thread or a signal handler.

        Calls and streams in flight end with RuntimeError at once, and lose the results that they had not given yet;
        every later call raises it as well. Returns within 2 s; a thread that is reading a file, or looking up the host
        name, ends after that.
        """
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _options(self, *, sim_thres: float | None, details: bool | None) -> "Options":
        from inference_client.calls import Options

        return Options(
            sim_thres=self._sim_thres if sim_thres is None else _threshold_text(sim_thres),
            details=self._details if details is None else details,
            settings=self._settings,
        )

    def _require_open(self) -> None:
        if self._pool.closed:
            raise RuntimeError(_CLOSED.format(url=self._settings.url)) from None

    def _images_per_request(self) -> int:
        from inference_client.failures import RequestError

        with self._limit_lock:
            if self._max_batch_size is not None:
                return self._max_batch_size
            # Calls that come meanwhile wait for the same answer, rather than for their turn to ask.
            reading = self._reading_limit
            if reading is None or reading.done():
                reading = self._reading_limit = self._pool.submit(_read_limit)
        try:
            self._max_batch_size = outcome_of(reading)
        except RequestError as failure:
            if failure.answered:
                return 1  # for this call: the server is there, but does not tell its limit
            raise
        return self._max_batch_size


_all_classify: "weakref.WeakSet[Classify]" = weakref.WeakSet()


def _forget_reading_after_fork() -> None:
    # Only the forking thread lives on in the child: nobody there would release the lock, or finish the reading.
    for classify in list(_all_classify):
        classify._limit_lock = threading.Lock()
        classify._reading_limit = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_reading_after_fork)


def _read_limit(connection: "Connection") -> int:
    return connection.max_batch_size()


def _threshold_text(sim_thres: float | None) -> str | None:
    # As text even NaN reaches the server, which refuses it by name; as a number it would break the request's JSON.
    if sim_thres is None:
        return None
    try:
        return str(float(sim_thres))
    except OverflowError:
        return str(math.inf)
    except (TypeError, ValueError) as error:
        raise type(error)(f"sim_thres is {sim_thres!r}: give a number, -1 to 1") from error
