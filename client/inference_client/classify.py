"""The class for callers that block."""

import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from inference_client.client import Client, Results
from inference_client.errors import StreamError
from inference_client.images import Image, ImageInput, collect_lazily, collect_to_send

if TYPE_CHECKING:
    from inference_client.transport import Options


class Classify(Client):
    """An inference server that classifies images.

    Any number of threads may call one ``Classify`` at the same time. It is a context manager. ``close()`` ends its
    connections; otherwise they end with the program.

    Args:
        url: ``http://host:port``, ``host:port`` or ``https://host:port``; a base path may follow. No connection is
            opened yet.
        timeout_s: Deadline of each request with its retries, seconds, finite and > 0. A long list is several requests.
            A request is retried if the server is overloaded, if one of its model processes is being restarted, or if
            a server that has answered before is being restarted.
        connect_timeout_s: Deadline of opening a connection, seconds, finite and > 0.
        sim_thres: Lowest cosine similarity at which a base image is a match, -1 to 1; None leaves it to the server. The
            server refuses a value out of range.
        details: Whether each entry also has the evidence for its label.
        client_id: Name of this client in the server's metrics; sent as ``X-Client-Id``, printable ASCII.
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
        from inference_client.background import Background  # here, so that importing this module is quick

        super().__init__(
            url,
            timeout_s=timeout_s,
            connect_timeout_s=connect_timeout_s,
            sim_thres=sim_thres,
            details=details,
            client_id=client_id,
            api_key=api_key,
        )
        self._background = Background(self._settings)
        weakref.finalize(self, self._background.close)

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
            progress: Called in the calling thread with the number of images that were classified, were undecodable or
                failed since the last call.

        Returns:
            ``(results, status_code)``. If the server answered any image, ``results`` is a list with one entry per
            image, in order: ``{'Label': str, 'Probability': float}``, or ``{'Label': None, 'Probability': None,
            'Error': reason}``. ``details`` adds ``Scores`` {class: similarity or probability}, ``Matches`` {class:
            number}, empty without a base set, ``Neighbors`` [{'Image': 'class/file', 'Similarity': float}], best
            first, ``Version``, the version of the models that answered, and ``Threshold``, the similarity threshold
            in force, None without a base set. Otherwise ``results`` is ``{'error': message}``. ``status_code`` is

            * 200: every image is classified, or the list is empty,
            * 207: some images are undecodable, or some requests of a long list failed,
            * 400: every image is undecodable; with ``{'error': ...}``, the server refused the request,
            * 503: the server is overloaded or unreachable,
            * 504: the server is too slow,
            * another: the server's own status, for example 401 or 403 for a wrong API key.

        Raises:
            OSError: A path can't be read, for example FileNotFoundError; raised before anything is sent.
            TypeError: Not an image; the message shows what to pass.
            ValueError: An array of another shape, or a file that is not a regular one.
            RuntimeError: This Classify is closed, or was closed during the call; or ``progress`` forked the process and
                this is the child.
        """
        from inference_client.background import StoppedError
        from inference_client.calls import Call
        from inference_client.failures import RequestError

        options = self._options(sim_thres=sim_thres, details=details)
        collected = collect_to_send(images)
        try:
            self._background.require_open()
            if not collected:
                return [], 200
            thread = self._background.thread()
            call = Call(thread.transport, thread.submit, collected, options=options, progress=progress)
            return call.outcome(list(thread.drive(call)))
        except RequestError as failure:
            return {"error": failure.message}, failure.status
        except StoppedError:
            raise self._closed_error() from None

    def stream(
        self, images: Iterable[ImageInput], *, sim_thres: float | None = None, details: bool | None = None
    ) -> Generator[dict[str, Any], None, None]:
        """Classify any number of images, in bounded memory.

        The stream takes images as you take results, in the same thread, at most 16 requests ahead. Closing or deleting
        the generator breaks off the requests in flight.

        Args:
            images: Any number of images, each as a call takes it. An iterator or generator is read once.
            sim_thres: As in the constructor, for this stream.
            details: As in the constructor, for this stream.

        Yields:
            Each image's entry, in order, as in a call's list. A path that can't be read, an array of another shape, and
            an image whose request failed also have an entry with ``Error``.

        Raises:
            TypeError: Not an iterable of images. If one item is not an image, TypeError comes after the results of the
                items before it, and so does any exception of the iterable.
            StreamError: The server is gone, refuses the first request, or has failed 8 requests in a row. The images
                before have their results; the others have none.
            RuntimeError: This Classify is closed, or was closed meanwhile; or the process was forked and this is the
                child.
        """
        options = self._options(sim_thres=sim_thres, details=details)
        collected = collect_lazily(images)
        if self._background.closed:
            raise self._closed_error()
        return self._stream(collected, options)

    def _stream(self, images: Iterator[Image], options: "Options") -> Generator[dict[str, Any], None, None]:
        from inference_client.background import StoppedError
        from inference_client.calls import Stream
        from inference_client.failures import RequestError

        try:
            thread = self._background.thread()
            for answer in thread.drive(Stream(thread.transport, thread.submit, images, options=options)):
                yield from answer.results_or_raise()
        except RequestError as failure:
            raise StreamError(failure.message, failure.status) from None
        except StoppedError:
            raise self._closed_error() from None

    def close(self) -> None:
        """End all connections, from any thread or a signal handler.

        Calls and streams in flight raise RuntimeError at once, and lose the results that they had not given yet. Every
        later call raises RuntimeError too. Returns within 2 s. A thread that is reading a file, or looking up the host
        name, ends when it is done.
        """
        self._background.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
