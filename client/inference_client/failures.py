"""Every way in which a request can fail, in one table: the exception, the caller's status, and what to do about it."""

import json
import socket
import ssl
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from inference_client.settings import Settings

NO_DECODABLE_IMAGE = "no decodable image: "
# Triton's words about a model whose process has died; ``inference-server`` replaces such a process within seconds.
_MODEL_PROCESS_DIED = "is not healthy"
# Triton's words about a model that it has unloaded, as ``inference-server`` does before it ends.
_UNLOADED = "has no available versions"
# Triton's words about a request for an output that the model lacks.
_NO_SUCH_OUTPUT = "unexpected inference output"
MAX_WORDS_CHARACTERS = 2000
_NOT_TRITONS = "a page that is not Triton's, so it comes from a proxy or another server"

# Failures that depend on what the request carried: the next request of a list can fare better.
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
        words: The reason that the answer gives.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(status, words)
        self.status = status
        self.words = words


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
        """Whether the cause lies in what this request carried, not in the server."""
        return self.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    @property
    def lost(self) -> bool:
        """Whether there is no server any more, or none yet."""
        return self.status == HTTPStatus.SERVICE_UNAVAILABLE and not self.answered


@dataclass(frozen=True)
class _Row:
    raised: type[Exception] | tuple[type[Exception], ...]
    says: str
    status: int | None = None  # None: the answer's own
    answered: int | None = None  # only for answers of this status
    words: str = ""  # only for answers that say this


_TABLE = (
    _Row(
        RefusedError,
        "{detail} The model repository was exported by an earlier version: export it again.",
        answered=HTTPStatus.BAD_REQUEST,
        words=_NO_SUCH_OUTPUT,
    ),
    _Row(RefusedError, "{detail} Is api_key right?", answered=HTTPStatus.UNAUTHORIZED),
    _Row(RefusedError, "{detail} Is api_key right?", answered=HTTPStatus.FORBIDDEN),
    _Row(
        RefusedError,
        "{detail} Is the model ensemble loaded there, and the url's path right? curl {url}/v2/models/ensemble/ready",
        answered=HTTPStatus.NOT_FOUND,
    ),
    _Row(
        RefusedError,
        "{detail} A proxy admits less than this request: send smaller images, or raise its limit.",
        answered=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ),
    _Row(
        RefusedError,
        "{detail} You have sent too many requests: wait, or ask for a higher limit.",
        answered=HTTPStatus.TOO_MANY_REQUESTS,
    ),
    _Row(RefusedError, "{detail} The server's log says more.", answered=HTTPStatus.INTERNAL_SERVER_ERROR),
    _Row(
        RefusedError,
        "{detail} Is tritonserver running behind it? curl {url}/v2/health/ready",
        answered=HTTPStatus.BAD_GATEWAY,
    ),
    _Row(
        RefusedError,
        "{detail} It was overloaded for the {timeout_s:g} s of timeout_s: send less at a time, or wait longer.",
        answered=HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Row(RefusedError, "{detail}"),
    # TimeoutError is an OSError, and so is each one before OSError itself.
    _Row(
        TimeoutError,
        "{url} gave no answer in time (timeout_s={timeout_s:g}, connect_timeout_s={connect_timeout_s:g}). "
        "Is it busy, or the address wrong? curl {url}/v2/health/ready",
        HTTPStatus.GATEWAY_TIMEOUT,
    ),
    _Row(
        ConnectionRefusedError,
        "{url} refused the connection. Is tritonserver running there? curl {url}/v2/health/ready",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Row(
        socket.gaierror,
        "{url} was not found: its host name has no address ({detail}). Is it spelt right, and known here?",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Row(
        ssl.SSLCertVerificationError,
        "{url} has a certificate that is not trusted here ({detail}). If it is yours, name the file of the "
        "authority that signed it in the environment variable SSL_CERT_FILE.",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Row(
        ssl.SSLError,
        "{url} does not speak TLS as expected ({detail}). Is it http:// instead of https://?",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Row(
        OSError,
        "{url} could not be reached, or was lost ({detail}). curl {url}/v2/health/ready",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Row(
        aiohttp.ClientConnectionError,
        "{url} closed the connection without an answer. Has tritonserver died? curl {url}/v2/health/ready",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Row(
        _BROKEN_ANSWER,
        "{url} broke off its answer, or does not speak HTTP ({detail}). Is it tritonserver's HTTP port, and up? "
        "curl {url}/v2/health/ready",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Row(
        Exception,
        "{url} answered with something else than inference results ({detail}). Is it tritonserver, with a "
        "repository of ours?",
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
        The status and the message of the table's first row that fits.
    """
    answer, words = (error.status, error.words) if isinstance(error, RefusedError) else (None, "")
    row = next(
        row for row in _TABLE if isinstance(error, row.raised) and row.answered in {None, answer} and row.words in words
    )
    message = row.says.format(
        url=settings.url,
        detail=_detail(error, settings),
        timeout_s=settings.timeout_s,
        connect_timeout_s=settings.connect_timeout_s,
    )
    status = row.status or answer or HTTPStatus.BAD_GATEWAY
    # A success without results is none.
    if status < HTTPStatus.MULTIPLE_CHOICES:
        status = HTTPStatus.BAD_GATEWAY
    return RequestError(int(status), message, answered=not isinstance(error, (OSError, aiohttp.ClientError)))


def may_pass(error: Exception, *, known: bool) -> bool:
    """Whether the same request may succeed if it is sent again later.

    Args:
        error: What the request raised.
        known: Whether this server has answered before. If so, a server that is gone, or a proxy without a server behind
            it, is taken to be restarting; otherwise the address is taken to be wrong.
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
        error: What the request raised.
        images: Number of the request's images.

    Returns:
        The reason for each image, in order; None if the request was refused for something else.
    """
    _, found, reasons_json = error.words.partition(NO_DECODABLE_IMAGE)
    if error.status != HTTPStatus.BAD_REQUEST or not found:
        return None
    try:
        reasons, _ = json.JSONDecoder().raw_decode(reasons_json)
    except (ValueError, RecursionError):
        return None
    if not isinstance(reasons, list) or len(reasons) != images:
        return None
    return [str(reason) for reason in reasons]


def _detail(error: Exception, settings: Settings) -> str:
    if isinstance(error, RefusedError):
        words = error.words
        if len(words) > MAX_WORDS_CHARACTERS:
            words = f"{words[:MAX_WORDS_CHARACTERS]} ..."
        return f"{settings.url} answered {error.status}: {words.rstrip('.')}."
    if isinstance(error, aiohttp.ClientResponseError):
        return " ".join(error.message.split())
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
