"""One thread's connection to the server: deadlines, retries, and what to do with a connection that failed."""

import itertools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import gevent
import gevent.ssl
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from inference_client.answers import Tensors, failed_entry, output_names, read_entries
from inference_client.failures import STALE_CONNECTION, describe, may_pass, undecodable_reasons
from inference_client.reading import BoundedReads
from inference_client.settings import Settings
from inference_client.workers import InterruptedRequestError

MODEL = "ensemble"

FIRST_BACKOFF_S = 0.1
LONGEST_BACKOFF_S = 3.0

T = TypeVar("T")


class Connection:
    """A tritonclient that only the thread uses which made it.

    tritonclient's HTTP client runs on gevent, whose event loop belongs to one thread: shared between threads it hangs.
    ``network_timeout`` is per read, so a server that trickles would never exceed it; the real deadline is a
    ``gevent.Timeout``, after which the connection is closed, so that no late answer is ever read as another's. While a
    server sends without pause no such timeout can fire, so every read looks at the clock as well.

    Args:
        settings: Of the server.
        known: Set once the server has answered with a success, on whichever connection.
    """

    def __init__(self, settings: Settings, known: threading.Event) -> None:
        self._settings = settings
        self._known = known
        self._client: InferenceServerClient | None = None
        self._reads = BoundedReads(self._require_time)
        self._deadline_s = 0.0  # of the current request, on the monotonic clock
        self._answered = False  # whether this client has had an answer
        # Reentrant, since a signal handler that closes the pool may interrupt an interruption.
        self._lock = threading.RLock()
        self._interrupted = False
        self._waiting: Any = None  # the greenlet that waits for the server
        self._wake_up = gevent.get_hub().loop.async_()
        self._wake_up.start(self._throw)

    def begin(self) -> None:
        """Start a task: an interruption of the one before no longer counts."""
        self._interrupted = False

    def interrupt(self) -> None:
        """Make the current request raise InterruptedRequestError; called from other threads."""
        with self._lock:
            self._interrupted = True
            if self._wake_up is not None:
                self._wake_up.send()

    def close(self) -> None:
        """Close the connection and end the thread's event loop."""
        with self._lock:
            wake_up, self._wake_up = self._wake_up, None
        wake_up.stop()
        wake_up.close()
        self._disconnect()
        # In a program that gevent has patched, this thread is a greenlet, and the event loop everybody's.
        hub = gevent.get_hub()
        # A host name that is still being looked up can't be interrupted, and gevent would wait for it.
        if gevent.getcurrent().parent is None and not len(hub.threadpool):
            hub.destroy(destroy_loop=True)

    def max_batch_size(self) -> int:
        """Read how many images one request may carry.

        Returns:
            The limit, >= 1.

        Raises:
            RequestError: The server was not reached, or did not say.
        """

        def request(client: InferenceServerClient) -> int:
            config = client.get_model_config(MODEL, headers=dict(self._settings.headers))
            return max(1, int(config["max_batch_size"]))

        try:
            return self._retry(request)
        except Exception as error:
            raise describe(error, self._settings) from error

    def classify(self, contents: Sequence[bytes], *, sim_thres: str | None, details: bool) -> list[dict[str, Any]]:
        """Classify images in one request; while the server is overloaded, or restarting, it is sent again.

        Args:
            contents: Bytes of the images' files, at least one.
            sim_thres: Threshold of this request, as text; None leaves it to the server.
            details: Whether to ask for the evidence.

        Returns:
            One entry per image, in order; that of an image which can't be decoded has the reason.

        Raises:
            RequestError: The request failed.
        """
        return self._ask_ensemble(
            contents,
            outputs=output_names(details=details),
            sim_thres=sim_thres,
            read=partial(read_entries, images=len(contents), details=details),
        )

    def _ask_ensemble(
        self,
        contents: Sequence[bytes],
        *,
        outputs: Sequence[str],
        sim_thres: str | None,
        read: Callable[[Tensors], list[dict[str, Any]]],
    ) -> list[dict[str, Any]]:
        image = InferInput("IMAGE", [len(contents), 1], "BYTES")
        image.set_data_from_numpy(np.array([[content] for content in contents], dtype=np.object_))
        requested = [InferRequestedOutput(name, binary_data=True) for name in outputs]
        parameters = None if sim_thres is None else {"sim_thres": sim_thres}

        def request(client: InferenceServerClient) -> list[dict[str, Any]]:
            # tritonclient adds to the headers that it is given.
            headers = dict(self._settings.headers)
            return read(client.infer(MODEL, [image], outputs=requested, headers=headers, parameters=parameters))

        try:
            return self._retry(request)
        except Exception as error:
            reasons = undecodable_reasons(error, len(contents))
            if reasons is None:
                raise describe(error, self._settings) from error
            return [failed_entry(reason) for reason in reasons]

    def _retry(self, request: Callable[[InferenceServerClient], T]) -> T:
        deadline_s = time.monotonic() + self._settings.timeout_s
        passing: Exception | None = None
        for attempt in itertools.count():
            longest_s = min(LONGEST_BACKOFF_S, FIRST_BACKOFF_S * 2**attempt)
            delay_s = longest_s * random.uniform(0.5, 1)  # noqa: S311 - so that clients do not come back all at once
            try:
                return self._exchange(request, deadline_s)
            except TimeoutError:
                if passing is None:
                    raise
                # The server's last word tells more than that the last try was cut short.
                raise passing from None
            except Exception as error:
                # The last try is made while there is still time for an answer.
                left_s = deadline_s - time.monotonic() - FIRST_BACKOFF_S
                if not may_pass(error, known=self._known.is_set()) or left_s <= 0:
                    raise
                passing = error
                delay_s = min(delay_s, left_s)
            with self._interruptible():
                gevent.sleep(delay_s)
        raise AssertionError("unreachable")

    def _exchange(self, request: Callable[[InferenceServerClient], T], deadline_s: float) -> T:
        reused = self._answered
        try:
            return self._exchange_once(request, deadline_s)
        except STALE_CONNECTION:
            # A server may close a connection that it has answered on whenever it likes.
            if not reused:
                raise
        return self._exchange_once(request, deadline_s)

    def _exchange_once(self, request: Callable[[InferenceServerClient], T], deadline_s: float) -> T:
        self._deadline_s = deadline_s
        deadline = gevent.Timeout.start_new(max(0.0, deadline_s - time.monotonic()))
        try:
            with self._interruptible():
                answer = request(self._connected())
        except gevent.Timeout as expired:
            self._disconnect()
            if expired is not deadline:
                raise
            raise TimeoutError from None
        except InferenceServerException as error:
            if error.status() is None:
                self._disconnect()
            else:
                self._answered = True
            raise
        except BaseException:
            self._disconnect()
            raise
        finally:
            deadline.close()
        self._answered = True
        self._known.set()
        return answer

    def _connected(self) -> InferenceServerClient:
        if self._client is None:
            settings = self._settings
            self._client = InferenceServerClient(
                settings.target,
                connection_timeout=settings.connect_timeout_s,
                network_timeout=settings.timeout_s,
                ssl=settings.tls,
                ssl_context_factory=_tls_context if settings.tls else None,
            )
            self._reads.bound(self._client)
        return self._client

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        connected, self._reads.socket = self._reads.socket, None
        self._answered = False
        if client is not None:
            client.close()
        # A client's close() leaves out the socket of a request that a deadline cut short while it was being sent, which
        # would stay open until it is collected.
        if connected is not None:
            connected.close()

    def _require_time(self) -> None:
        if self._interrupted:
            raise InterruptedRequestError
        if time.monotonic() > self._deadline_s:
            raise TimeoutError

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        self._waiting = gevent.getcurrent()
        try:
            if self._interrupted:
                raise InterruptedRequestError
            yield
        finally:
            self._waiting = None

    def _throw(self) -> None:
        # In the event loop, so the thread waits for the server, or has been woken for a task that is over.
        if self._interrupted and self._waiting is not None:
            self._waiting.throw(InterruptedRequestError())


class _TLSContext(gevent.ssl.SSLContext):  # type: ignore[misc]
    """Not ``create_default_context``: even gevent's makes the standard library's, which no deadline reaches."""

    def wrap_socket(self, sock: Any, **options: Any) -> Any:
        """Speak TLS, and leave no socket open when a deadline cuts the handshake short, as gevent does."""
        encrypted = super().wrap_socket(sock, do_handshake_on_connect=False, **options)
        try:
            encrypted.do_handshake()
        except BaseException:
            encrypted.close()
            raise
        return encrypted


def _tls_context(cafile: str | None = None) -> _TLSContext:
    context = _TLSContext(gevent.ssl.PROTOCOL_TLS_CLIENT)  # which checks certificate and host name
    # geventhttpclient looks for SSL_CERT_FILE once, when it is imported; our messages tell people to set it.
    authorities = os.environ.get("SSL_CERT_FILE") or cafile
    if authorities:
        context.load_verify_locations(authorities)
    else:  # older ones name none
        context.load_default_certs()
    return context
