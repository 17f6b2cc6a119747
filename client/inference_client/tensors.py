"""Output tensors instead of entries, for packages that build on the client."""

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from inference_client.answers import ERROR, ImageTensors
from inference_client.background import Background
from inference_client.calls import Requests
from inference_client.client import threshold_text
from inference_client.failures import RequestError
from inference_client.images import Image, ImageInput, collect
from inference_client.settings import read_settings
from inference_client.transport import Options


class TensorClient:
    """Asks a server's models for tensors, with the deadlines and retries of :class:`inference_client.Classify`.

    Any number of threads may use one ``TensorClient`` at the same time. It is a context manager.

    Args:
        url: ``http://host:port``, ``host:port`` or ``https://host:port``; a base path may follow.
        timeout_s: Deadline of each request with its retries, seconds, finite and > 0.
        connect_timeout_s: Deadline of opening a connection, seconds, finite and > 0.
        client_id: Sent as ``X-Client-Id``, printable ASCII.
        api_key: Sent as ``X-API-Key``, printable ASCII.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is wrong; the message says what to give instead.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 60,
        connect_timeout_s: float = 5,
        client_id: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self._settings = read_settings(
            url, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s, client_id=client_id, api_key=api_key
        )
        self._background = Background(self._settings)
        weakref.finalize(self, self._background.close)

    @property
    def url(self) -> str:
        """The server's address as messages show it."""
        return self._settings.url

    def images(
        self, images: ImageInput | Iterable[ImageInput], outputs: Sequence[str], *, sim_thres: float | None = None
    ) -> Iterator[ImageTensors]:
        """Send images to the ensemble, split into requests as ``Classify`` splits a list.

        Args:
            images: As :meth:`inference_client.Classify.__call__` takes them. They are checked at once. Their files are
                read when they are sent, at most 16 requests ahead of the results that you have taken.
            outputs: Names of the outputs.
            sim_thres: Lowest cosine similarity at which a base image is a match, -1 to 1; None leaves it to the server.

        Returns:
            An iterator over the tensors of each image, in order.

        Raises:
            OSError: A path can't be read.
            TypeError: Not an image.
            ValueError: An array of another shape, or a file that is not a regular one.
            RequestError: Raised by the iterator for the first request that fails, after the results before it.
        """
        options = Options(
            sim_thres=threshold_text(sim_thres),
            outputs=tuple(dict.fromkeys([ERROR, *outputs])),
            read=lambda image: image,
        )
        return self._images(collect(images), options)

    def _images(self, images: Sequence[Image], options: Options) -> Iterator[ImageTensors]:
        thread = self._background.thread()
        for answer in thread.drive(_UntilFirstFailure(thread.transport, thread.submit, images, options=options)):
            yield from answer.results_or_raise()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str],
        *,
        version: str = "",
        parameters: Mapping[str, Any] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Ask one model, in one request.

        Args:
            model: The model's name.
            inputs: The model's input tensors, batch dimension first; bytes in arrays of dtype object.
            outputs: Names of the outputs.
            version: The model's version; empty lets the server choose.
            parameters: Request parameters.

        Returns:
            The output tensors, batch dimension first.

        Raises:
            RequestError: The request failed.
        """
        thread = self._background.thread()
        return thread.run(thread.transport.infer, model, inputs, outputs, version, parameters)

    def config(self, model: str, version: str = "") -> dict[str, Any]:
        """Read a model's configuration.

        Args:
            model: The model's name.
            version: The model's version; empty lets the server choose.

        Returns:
            The configuration as Triton gives it.

        Raises:
            RequestError: The request failed.
        """
        thread = self._background.thread()
        return thread.run(thread.transport.config, model, version)

    def close(self) -> None:
        """End all connections. Every later request raises StoppedError."""
        self._background.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _UntilFirstFailure(Requests):
    def ends(self, failure: RequestError) -> bool:
        return True
