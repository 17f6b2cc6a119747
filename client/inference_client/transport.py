"""Requests to one server: deadlines, retries, and bounds on what is read of an answer."""

import asyncio
import errno
import itertools
import json
import os
import random
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp
import certifi
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferResult
from yarl import URL

from inference_client.answers import ImageTensors, split_by_image
from inference_client.bodies import Body, Upload, encode_files, encode_tensors
from inference_client.failures import (
    CONNECTION_CLOSED,
    CertificatesError,
    RefusedError,
    RequestError,
    describe,
    may_pass,
    refusal,
    undecodable_reasons,
)
from inference_client.images import BytesImage, Image, MissingImage, UnreadableImageError
from inference_client.settings import Settings

MODEL = "ensemble"

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 3.0

# Answers without tensors: errors, which may hold a reason for each image, and configurations.
MAX_JSON_BYTES = 4 * 2**20
# Answers with tensors: 2 MiB for each of 32 images.
MAX_ANSWER_BYTES = 64 * 2**20
# More than this is encoded and decoded in another thread, so that the event loop stays free.
MAX_INLINE_BYTES = 2**18

TENSORS_HEADER = "Inference-Header-Content-Length"
_SIZE = re.compile(r"[0-9]{1,9}")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every request of a call asks for.

    Attributes:
        sim_thres: The threshold as text; None leaves it to the server.
        outputs: Names of the ensemble's outputs, including ``ERROR``.
        read: Turns the tensors or the error of one image into its result for the caller.
        if_offered: Names of further outputs, which are asked for where the ensemble has them.
    """

    sim_thres: str | None
    outputs: Sequence[str]
    read: Callable[[ImageTensors], Any]
    if_offered: Sequence[str] = ()

    def failed(self, failure: RequestError, images: int) -> list[Any]:
        """Make the results of this many images that a failure leaves without an answer."""
        return [self.read(ImageTensors(error=failure.message)) for _ in range(images)]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The outcome of one request for images.

    Attributes:
        results: The result of each image, in order; if the request failed, each has its error.
        elapsed_s: How long the server took, seconds; None if the request failed, or if no image could be read and
            nothing was sent.
        failure: Why the request failed; None if it did not.
        ends: Whether nothing more is sent because of this failure.
    """

    results: Sequence[Any]
    elapsed_s: float | None = None
    failure: RequestError | None = None
    ends: bool = False

    def results_or_raise(self) -> Sequence[Any]:
        """Return the results, or raise the failure if nothing more is sent because of it."""
        if self.ends and self.failure is not None:
            raise self.failure
        return self.results


@dataclass(frozen=True, kw_only=True)
class _EnsembleConfig:
    max_batch_size: int
    outputs: frozenset[str]


# The connection that carries the current task's request.
_connection: ContextVar[asyncio.Transport | None] = ContextVar("_connection", default=None)


class _Connector(aiohttp.TCPConnector):
    """Sets ``_connection`` to the connection that a request gets."""

    async def connect(self, *arguments: Any, **options: Any) -> aiohttp.connector.Connection:
        connection = await super().connect(*arguments, **options)
        _connection.set(connection.transport)
        return connection


class Transport:
    """Sends requests to one server, all from one event loop.

    Attributes:
        settings: How the server is reached.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._known = False  # whether a request has succeeded
        self._session: aiohttp.ClientSession | None = None
        self._reading_config: asyncio.Task[_EnsembleConfig | RequestError] | None = None

    async def close(self) -> None:
        """Close all connections. Requests in flight fail."""
        if self._reading_config is not None:
            self._reading_config.cancel()
        if self._session is not None:
            await self._session.close()

    async def max_batch_size(self) -> int:
        """Return how many images one request may carry; 1 if the server's answer does not say.

        Raises:
            RequestError: The server was not reached.
        """
        return (await self._ensemble_config()).max_batch_size

    async def _ensemble_config(self) -> _EnsembleConfig:
        # Calls that come while the configuration is being read wait for the same answer.
        reading = self._reading_config
        if reading is None or (reading.done() and isinstance(reading.result(), RequestError)):
            reading = self._reading_config = asyncio.create_task(self._outcome(self._read_ensemble_config))
        config = await asyncio.shield(reading)
        is_kept = isinstance(config, RequestError) and config.answered
        return _EnsembleConfig(max_batch_size=1, outputs=frozenset()) if is_kept else _raise_failure(config)

    async def classify(self, images: Sequence[Image], options: Options) -> Answer:
        """Send images in one request.

        Args:
            images: At least one.
            options: What to ask for.

        Returns:
            The outcome. A failure is returned, not raised, because a traceback would keep the images in memory.
        """
        if options.if_offered:
            try:
                offered = (await self._ensemble_config()).outputs.intersection(options.if_offered)
            except RequestError as failure:
                return Answer(results=options.failed(failure, len(images)), failure=failure)
            options = replace(options, outputs=(*options.outputs, *sorted(offered)), if_offered=())
        unreadable, body = await _inline_or_in_thread(
            partial(_encode_images, images, options),
            inline=all(isinstance(image, (BytesImage, MissingImage)) for image in images)
            and sum(image.size_bytes for image in images) <= MAX_INLINE_BYTES,
        )
        if body is None:
            return Answer(results=[options.read(image) for image in unreadable.values()])
        count = len(images) - len(unreadable)

        def read(response: InferResult) -> list[Any]:
            return [options.read(image) for image in split_by_image(response, count, options.outputs)]

        async def request() -> list[Any]:
            try:
                return await self._infer(MODEL, "", body, read)
            except RefusedError as refused:
                reasons = undecodable_reasons(refused, count)
                if reasons is None:
                    raise
                return [options.read(ImageTensors(error=reason)) for reason in reasons]

        started_s = time.monotonic()
        outcome = await self._outcome(request)
        if isinstance(outcome, RequestError):
            return Answer(results=options.failed(outcome, len(images)), failure=outcome)
        sent = iter(outcome)
        return Answer(
            results=[
                options.read(unreadable[place]) if place in unreadable else next(sent) for place in range(len(images))
            ],
            elapsed_s=time.monotonic() - started_s,
        )

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str],
        version: str,
        parameters: Mapping[str, Any] | None,
    ) -> dict[str, NDArray[Any]]:
        """Ask any model; see :meth:`inference_client.tensors.TensorClient.infer`."""
        body = await asyncio.to_thread(encode_tensors, inputs, outputs, parameters)

        def read(response: InferResult) -> dict[str, NDArray[Any]]:
            tensors = {name: response.as_numpy(name) for name in outputs}
            missing = [name for name, tensor in tensors.items() if tensor is None]
            if missing:
                raise ValueError(f"output {missing[0]} is missing")
            return tensors

        return _raise_failure(await self._outcome(partial(self._infer, model, version, body, read)))

    async def config(self, model: str, version: str) -> dict[str, Any]:
        """Read a model's configuration; see :meth:`inference_client.tensors.TensorClient.config`."""
        return _raise_failure(await self._outcome(partial(self._config, model, version)))

    async def _read_ensemble_config(self) -> _EnsembleConfig:
        config = await self._config(MODEL, "")
        return _EnsembleConfig(
            max_batch_size=max(1, int(config["max_batch_size"])),
            outputs=frozenset(str(output["name"]) for output in config.get("output", ())),
        )

    async def _config(self, model: str, version: str) -> dict[str, Any]:
        content, _ = await self._exchange("GET", f"{_path(model, version)}/config", None)
        config: dict[str, Any] = json.loads(content)
        return config

    async def _infer(self, model: str, version: str, body: Body, read: Callable[[InferResult], T]) -> T:
        content, json_bytes = await self._exchange("POST", f"{_path(model, version)}/infer", body)

        def parse() -> T:
            return read(InferenceServerClient.parse_response_body(content, header_length=json_bytes))

        return await _inline_or_in_thread(parse, inline=len(content) <= MAX_INLINE_BYTES)

    async def _outcome(self, request: Callable[[], Awaitable[T]]) -> T | RequestError:
        try:
            return await self._retry(request)
        except Exception as error:
            return describe(error, self.settings)

    async def _retry(self, request: Callable[[], Awaitable[T]]) -> T:
        passing: Exception | None = None
        try:
            async with asyncio.timeout(self.settings.timeout_s) as deadline:
                for attempt in itertools.count():
                    try:
                        answer = await request()
                    except Exception as error:
                        # The last try starts while there is still time for an answer.
                        left_s = (deadline.when() or 0) - asyncio.get_running_loop().time() - FIRST_BACKOFF_S
                        if left_s <= 0 or not may_pass(error, known=self._known):
                            raise
                        passing = error
                    else:
                        self._known = True
                        return answer
                    longest_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**attempt)
                    # Random, so that clients do not come back all at once.
                    await asyncio.sleep(min(left_s, longest_s * random.uniform(0.5, 1)))  # noqa: S311
        except TimeoutError:
            if passing is None:
                raise
            # The server's last answer says more than that the deadline cut the last try short.
            raise passing from None
        raise AssertionError("unreachable")

    async def _exchange(self, method: str, path: str, body: Body | None) -> tuple[bytes, int | None]:
        try:
            return await self._exchange_once(method, path, body)
        except CONNECTION_CLOSED:
            # A server may close a kept connection at any time, even while the next request is on its way.
            return await self._exchange_once(method, path, body)

    async def _exchange_once(self, method: str, path: str, body: Body | None) -> tuple[bytes, int | None]:
        _connection.set(None)
        try:
            async with self._connected().request(
                method,
                URL(f"{self.settings.url}{path}", encoded=True),
                data=None if body is None else Upload(body.content),
                headers={} if body is None else {TENSORS_HEADER: str(body.json_bytes)},
                allow_redirects=False,
            ) as response:
                json_bytes = _read_json_bytes(response)
                content = await _read_content(response, MAX_JSON_BYTES if json_bytes is None else MAX_ANSWER_BYTES)
        except BaseException as error:
            # aiohttp would close the connection only after the server has read everything that was written.
            connection = _connection.get()
            if connection is not None:
                connection.abort()
            if isinstance(error, aiohttp.ClientConnectorError):
                raise error.os_error from None
            if isinstance(error, aiohttp.ClientOSError):
                # aiohttp gives no number when a connection ends while the body is written.
                number = error.errno or errno.ECONNRESET
                raise OSError(number, error.strerror) from None  # of the subclass for its number
            raise
        if response.status != HTTPStatus.OK:
            raise refusal(response.status, content)
        return content, json_bytes

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            settings = self.settings
            self._session = aiohttp.ClientSession(
                headers={**settings.headers, "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_timeout_s),
                connector=_Connector(
                    limit=0,
                    ssl=_tls_context() if settings.url.startswith("https:") else True,
                    resolver=aiohttp.ThreadedResolver(),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session


def _raise_failure(outcome: T | RequestError) -> T:
    if isinstance(outcome, RequestError):
        raise outcome
    return outcome


async def _inline_or_in_thread(function: Callable[[], T], *, inline: bool) -> T:
    return function() if inline else await asyncio.to_thread(function)


def _path(model: str, version: str) -> str:
    return f"/v2/models/{model}/versions/{version}" if version else f"/v2/models/{model}"


def _encode_images(images: Sequence[Image], options: Options) -> tuple[dict[int, ImageTensors], Body | None]:
    """Read images, and encode a request for them.

    Returns:
        The error of each image that could not be read, by its place; and the request for the others, None if there are
        no others.
    """
    unreadable: dict[int, ImageTensors] = {}
    files = []
    for place, image in enumerate(images):
        try:
            files.append(image.read())
        except UnreadableImageError as error:
            unreadable[place] = ImageTensors(error=str(error))
    if not files:
        return unreadable, None
    parameters = {} if options.sim_thres is None else {"sim_thres": options.sim_thres}
    return unreadable, encode_files(files, options.outputs, parameters)


def _read_json_bytes(response: aiohttp.ClientResponse) -> int | None:
    """Read the size of the JSON that precedes an answer's tensors; None if the answer has no tensors."""
    encoding = response.headers.get("Content-Encoding")
    if encoding is not None:
        raise ValueError(f"the answer is compressed ({encoding!r:.40}), which was not asked for")
    sizes = response.headers.getall(TENSORS_HEADER, [])
    if not sizes:
        return None
    if len(sizes) > 1 or not _SIZE.fullmatch(sizes[0]) or int(sizes[0]) > MAX_JSON_BYTES:
        raise ValueError(f"{TENSORS_HEADER} is {', '.join(sizes)!r:.40}, not a number up to {MAX_JSON_BYTES}")
    return int(sizes[0])


async def _read_content(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > most_bytes:
            raise ValueError(f"the answer's body took more than {most_bytes} bytes")
        parts.append(part)
    return b"".join(parts)


def _tls_context() -> ssl.SSLContext:
    # Not aiohttp's, which reads SSL_CERT_FILE when aiohttp is imported: our messages tell people to set that variable.
    context = ssl.create_default_context()
    file = os.environ.get("SSL_CERT_FILE")
    try:
        context.load_verify_locations(file or certifi.where())  # the system may have none
    except OSError as error:  # which Python passes over when it loads the defaults
        reason = "no certificates in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise CertificatesError(
            f"the environment variable SSL_CERT_FILE names {file!r}, which can't be read ({reason}). Set it to a file "
            "of certificates in PEM that you trust, or unset it to trust the system's."
        ) from error
    return context
