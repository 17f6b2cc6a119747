"""Every way in which a request can fail: the exception, the caller's status, and what to do."""

import json
import re
import socket
import ssl
from http import HTTPStatus
from typing import NamedTuple

import aiohttp

from inference_client.settings import KEY_REMEDY, Settings

NO_DECODABLE_IMAGE = "no decodable image: "
# Triton's words about a model whose process has died; ``inference-server`` replaces such a process within seconds.
_MODEL_PROCESS_DIED = "is not healthy"
# Triton's words about a model that is unloaded, as ``inference-server`` does before it ends.
_UNLOADED = "has no available versions"
# Triton's words about a request for an output that the model lacks.
_NO_SUCH_OUTPUT = "unexpected inference output"
MAX_WORDS_CHARACTERS = 2000
_NOT_TRITONS = "a page that is not Triton's, so it comes from a proxy or another server"

# The beginning of an answer in HTTP/2, as aiohttp shows it.
_HTTP_2 = re.compile(r"b'\\x00\\x00.{1,4}\\x04\\x00")

# Failures that depend on the request's images: the next request of a list may succeed.
ABOUT_THE_CONTENT = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.INTERNAL_SERVER_ERROR}
)

# Raised when the server closes a connection before it answers.
CONNECTION_CLOSED = (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError)
# Raised for an answer that breaks off or is not HTTP.
_BROKEN_ANSWER = (aiohttp.ClientPayloadError, aiohttp.ClientResponseError)


class RefusedError(Exception):
    """The server, or a proxy in front of it, answered with a status other than 200.

    Attributes:
        status: The status.
        words: The reason in the answer.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(status, words)
        self.status = status
        self.words = words


class CertificatesError(OSError):
    """The certificates to trust can't be read."""


class RequestError(Exception):
    """A request got no results.

    Attributes:
        status: HTTP status for the caller.
        message: What was wrong, where, and what to do.
        answered: Whether an HTTP server answered at all.
    """

    def __init__(self, status: int, message: str, *, answered: bool) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.answered = answered

    @property
    def ends_list(self) -> bool:
        """Whether the other requests of the list would fail in the same way."""
        return self.status not in ABOUT_THE_CONTENT

    @property
    def about_one_request(self) -> bool:
        """Whether the cause lies in this request, not in the server."""
        return self.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    @property
    def lost(self) -> bool:
        """Whether no server is there, or none any more."""
        return self.status == HTTPStatus.SERVICE_UNAVAILABLE and not self.answered


class _Failure(NamedTuple):
    raised: type[Exception] | tuple[type[Exception], ...]
    says: str
    status: int


_HTTP_PORT = (
    "Give the HTTP port of the server: 8080 with inference-server, 8000 with tritonserver, unless another was chosen."
)
# What to do about a refusal, by its status.
_REMEDIES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: KEY_REMEDY,
    HTTPStatus.FORBIDDEN: KEY_REMEDY,
    HTTPStatus.NOT_FOUND: "Is the model ensemble loaded there, and the url's path right? "
    "Try: curl {url}/v2/models/ensemble/ready",
    HTTPStatus.METHOD_NOT_ALLOWED: f"So answers the port of tritonserver's metrics, usually 8002. {_HTTP_PORT}",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "This request is too large for a proxy: send smaller images, or raise its "
    "limit.",
    HTTPStatus.TOO_MANY_REQUESTS: "You have sent too many requests: wait, or ask for a higher limit.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "The server's log says more.",
    HTTPStatus.BAD_GATEWAY: "Is inference-server or tritonserver running behind it? Try: curl {url}/v2/health/ready",
    HTTPStatus.SERVICE_UNAVAILABLE: "It was overloaded for the {timeout_s:g} s of timeout_s: send less at a time, or "
    "wait longer.",
}
_GRPC_PORT = f"{{url}} speaks gRPC: this is a gRPC port of tritonserver, usually 8001. {_HTTP_PORT}"
_OLD_REPOSITORY = "The model repository was exported by an earlier version: export it again."

# The first row that fits an exception describes it.
_TABLE = (
    _Failure(CertificatesError, "{url} was not asked: {detail}", HTTPStatus.SERVICE_UNAVAILABLE),
    # TimeoutError and all exceptions up to OSError itself are OSErrors.
    _Failure(
        TimeoutError,
        "{url} gave no answer in time (timeout_s={timeout_s:g}, connect_timeout_s={connect_timeout_s:g}). "
        "Is it busy, or the address wrong? Try: curl {url}/v2/health/ready",
        HTTPStatus.GATEWAY_TIMEOUT,
    ),
    _Failure(
        ConnectionRefusedError,
        "{url} refused the connection. Is inference-server or tritonserver running there? "
        "Try: curl {url}/v2/health/ready",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Failure(
        socket.gaierror,
        "{url} was not found: its host name has no address ({detail}). Is it spelt right, and known here?",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Failure(
        ssl.SSLCertVerificationError,
        "{url} has a certificate that is not trusted here ({detail}). If the server is yours, set the environment "
        "variable SSL_CERT_FILE to the certificate of the authority that signed it.",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Failure(
        ssl.SSLError,
        "{url} does not speak TLS as expected ({detail}). Is it http:// instead of https://?",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Failure(
        OSError,
        "{url} could not be reached, or was lost ({detail}). Try: curl {url}/v2/health/ready",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Failure(
        aiohttp.ClientConnectionError,
        "{url} closed the connection without an answer. Has the server died? Try: curl {url}/v2/health/ready",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Failure(
        _BROKEN_ANSWER,
        "{url} broke off its answer, or does not speak HTTP ({detail}). Is it the HTTP port of inference-server or "
        "tritonserver, and up? "
        "Try: curl {url}/v2/health/ready",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Failure(
        Exception,
        "{url} answered with something other than inference results ({detail}). Is it inference-server or "
        "tritonserver, with a repository that export-repository wrote?",
        HTTPStatus.BAD_GATEWAY,
    ),
)


def refusal(status: int, content: bytes) -> RefusedError:
    """Read an answer with a status other than 200.

    Args:
        status: The status.
        content: The answer's body, as Triton's JSON or anything else.

    Returns:
        The exception to raise.
    """
    if not content:
        return RefusedError(status, "an empty response")
    try:
        return RefusedError(status, str(json.loads(content)["error"]))
    except (ValueError, LookupError, TypeError, RecursionError):
        return RefusedError(status, _NOT_TRITONS)


def describe(error: Exception, settings: Settings) -> RequestError:
    """Say what an exception of a request means to the caller.

    Args:
        error: What sending the request, or reading its answer, raised.
        settings: How the server is reached.

    Returns:
        The status and the message for the caller.
    """
    if isinstance(error, RefusedError):
        # A success without results is a failure too.
        status = error.status if error.status >= HTTPStatus.MULTIPLE_CHOICES else HTTPStatus.BAD_GATEWAY
        lacks_output = error.status == HTTPStatus.BAD_REQUEST and _NO_SUCH_OUTPUT in error.words
        remedy = _OLD_REPOSITORY if lacks_output else _REMEDIES.get(error.status, "")
        says = f"{{url}} answered {error.status}: {{detail}}. {remedy}".rstrip()
    elif isinstance(error, aiohttp.ClientResponseError) and _HTTP_2.search(error.message):
        says, status = _GRPC_PORT, HTTPStatus.SERVICE_UNAVAILABLE
    else:
        _, says, status = next(failure for failure in _TABLE if isinstance(error, failure.raised))
    message = says.format(
        url=settings.url,
        detail=_detail(error),
        timeout_s=settings.timeout_s,
        connect_timeout_s=settings.connect_timeout_s,
    )
    return RequestError(int(status), message, answered=not isinstance(error, (OSError, aiohttp.ClientError)))


def may_pass(error: Exception, *, known: bool) -> bool:
    """Whether the same request may succeed if it is sent again later.

    Args:
        error: What the request raised.
        known: Whether this server has answered before. If so, a server that can't be reached, directly or through a
            proxy, counts as restarting; otherwise the address counts as wrong.
    """
    if not isinstance(error, RefusedError):
        return known and isinstance(error, (ConnectionError, *CONNECTION_CLOSED, *_BROKEN_ANSWER))
    if error.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return _MODEL_PROCESS_DIED in error.words
    if error.status == HTTPStatus.NOT_FOUND:
        return known and _UNLOADED in error.words
    return error.status == HTTPStatus.SERVICE_UNAVAILABLE or (known and error.status == HTTPStatus.BAD_GATEWAY)


def undecodable_reasons(error: RefusedError, images: int) -> list[str] | None:
    """Read why a request's images can't be decoded.

    Args:
        error: The refusal.
        images: Number of images in the request.

    Returns:
        The reason for each image, in order; None if the request was refused for another reason.
    """
    _, separator, reasons_json = error.words.partition(NO_DECODABLE_IMAGE)
    if error.status != HTTPStatus.BAD_REQUEST or not separator:
        return None
    try:
        reasons, _ = json.JSONDecoder().raw_decode(reasons_json)
    except (ValueError, RecursionError):
        return None
    if not isinstance(reasons, list) or len(reasons) != images:
        return None
    return [str(reason) for reason in reasons]


def _detail(error: Exception) -> str:
    if isinstance(error, RefusedError):
        cut = " \N{HORIZONTAL ELLIPSIS}" if len(error.words) > MAX_WORDS_CHARACTERS else ""
        return error.words[:MAX_WORDS_CHARACTERS].rstrip(".") + cut
    if isinstance(error, aiohttp.ClientResponseError):
        return " ".join(error.message.split())
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
