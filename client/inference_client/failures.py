"""Every way in which a request can fail, in one table: what was raised, the status, what to do about it."""

import json
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException

from geventhttpclient.response import HTTPConnectionClosed
from tritonclient.utils import InferenceServerException

from inference_client.settings import Settings

NO_DECODABLE_IMAGE = "no decodable image: "
# tritonclient's own words for an error's body that is not Triton's JSON.
_UNREADABLE_BODY = "an exception occurred in the client while decoding the response"
# Triton's, of a model whose process it has lost; ``inference-server`` replaces such a process within seconds.
_MODEL_PROCESS_DIED = "is not healthy"
# Triton's, of a model that it has unloaded, as ``inference-server`` does before it ends.
_UNLOADED = "has no available versions"
MAX_WORDS_CHARACTERS = 2000
_NOT_TRITONS = "a page that is not Triton's, so it comes from a proxy or another server."

# Whether the next request of a list can fare better: these are about what the request carried.
ABOUT_THE_CONTENT = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.INTERNAL_SERVER_ERROR}
)

# Raised by a connection that the server has closed meanwhile.
STALE_CONNECTION = (HTTPConnectionClosed, ConnectionResetError, BrokenPipeError)


class RequestError(Exception):
    """A request that got no results.

    Attributes:
        status: HTTP status that the caller is told.
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
        """Whether the other requests of the list would meet the same."""
        return self.status not in ABOUT_THE_CONTENT

    @property
    def about_one_request(self) -> bool:
        """Whether it says nothing of the server, only of what this request carried."""
        return self.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    @property
    def lost(self) -> bool:
        """Whether there is no server any more, or none yet."""
        return self.status == HTTPStatus.SERVICE_UNAVAILABLE and not self.answered


@dataclass(frozen=True)
class _Row:
    raised: type[Exception]
    says: str
    status: int | None = None  # None: as answered
    answered: int | None = None  # only for answers of this status


_TABLE = (
    _Row(InferenceServerException, "{detail} Is api_key right?", answered=HTTPStatus.UNAUTHORIZED),
    _Row(InferenceServerException, "{detail} Is api_key right?", answered=HTTPStatus.FORBIDDEN),
    _Row(
        InferenceServerException,
        "{detail} Is the model ensemble loaded there, and the url's path right? curl {url}/v2/models/ensemble/ready",
        answered=HTTPStatus.NOT_FOUND,
    ),
    _Row(
        InferenceServerException,
        "{detail} A proxy admits less than this request: send smaller images, or raise its limit.",
        answered=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ),
    _Row(
        InferenceServerException,
        "{detail} You have sent too many requests: wait, or ask for a higher limit.",
        answered=HTTPStatus.TOO_MANY_REQUESTS,
    ),
    _Row(
        InferenceServerException,
        "{detail} The server's log says more.",
        answered=HTTPStatus.INTERNAL_SERVER_ERROR,
    ),
    _Row(
        InferenceServerException,
        "{detail} Is tritonserver running behind it? curl {url}/v2/health/ready",
        answered=HTTPStatus.BAD_GATEWAY,
    ),
    _Row(
        InferenceServerException,
        "{detail} It was overloaded for the {timeout_s:g} s of timeout_s: send less at a time, or wait longer.",
        answered=HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Row(InferenceServerException, "{detail}"),
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
        HTTPConnectionClosed,
        "{url} closed the connection without an answer. Has tritonserver died? curl {url}/v2/health/ready",
        HTTPStatus.SERVICE_UNAVAILABLE,
    ),
    _Row(
        HTTPException,
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


def describe(error: Exception, settings: Settings) -> RequestError:
    """Say what an exception of a request means to the caller.

    Args:
        error: What tritonclient, or reading its answer, raised.
        settings: Of the connection.

    Returns:
        The status and the message of the table's first fitting row.
    """
    answer = _status(error)
    if isinstance(error, InferenceServerException) and answer is None:
        # Raised by tritonclient itself, about an answer of status 200.
        error = ValueError(str(error.message()))
    row = next(row for row in _TABLE if isinstance(error, row.raised) and row.answered in {None, answer})
    message = row.says.format(
        url=settings.url,
        detail=_detail(error, settings, answer),
        timeout_s=settings.timeout_s,
        connect_timeout_s=settings.connect_timeout_s,
    )
    status = row.status or answer or HTTPStatus.BAD_GATEWAY
    # A success without results is none.
    if status < HTTPStatus.MULTIPLE_CHOICES:
        status = HTTPStatus.BAD_GATEWAY
    return RequestError(int(status), message, answered=not isinstance(error, (OSError, HTTPException)))


def may_pass(error: Exception, *, known: bool) -> bool:
    """Whether a later try of the same request may succeed.

    Args:
        error: What the request raised.
        known: Whether this server has answered before. Then one that is gone, or a proxy without a server behind it, is
            taken to be restarting; otherwise the address is taken to be wrong.
    """
    status = _status(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return _MODEL_PROCESS_DIED in str(error)
    if status == HTTPStatus.NOT_FOUND:
        return known and _UNLOADED in str(error)
    if status is not None:
        return status == HTTPStatus.SERVICE_UNAVAILABLE or (known and status == HTTPStatus.BAD_GATEWAY)
    return known and isinstance(error, (ConnectionError, HTTPException))


def undecodable_reasons(error: Exception, images: int) -> list[str] | None:
    """Read why a request's images can't be decoded.

    Args:
        error: What the request raised.
        images: Number of the request's images.

    Returns:
        The reason for each image, in order; None if the request failed for something else.
    """
    if _status(error) != HTTPStatus.BAD_REQUEST or not isinstance(error, InferenceServerException):
        return None
    _, found, reasons_json = str(error.message()).partition(NO_DECODABLE_IMAGE)
    if not found:
        return None
    try:
        reasons, _ = json.JSONDecoder().raw_decode(reasons_json)
    except (ValueError, RecursionError):
        return None
    if not isinstance(reasons, list) or len(reasons) != images:
        return None
    return [str(reason) for reason in reasons]


def _status(error: Exception) -> int | None:
    if not isinstance(error, InferenceServerException):
        return None
    status = str(error.status())
    return int(status) if status.isdecimal() else None


def _detail(error: Exception, settings: Settings, answer: int | None) -> str:
    if isinstance(error, InferenceServerException):
        words = str(error.message())
        if words.startswith(_UNREADABLE_BODY):
            words = _NOT_TRITONS
        elif len(words) > MAX_WORDS_CHARACTERS:
            words = f"{words[:MAX_WORDS_CHARACTERS]} ..."
        return f"{settings.url} answered {answer}: {words.rstrip('.')}."
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(map(str, _flat(error.args))) or type(error).__name__


def _flat(arguments: Sequence[object]) -> Sequence[object]:
    # geventhttpclient raises with a tuple of the parser's words and number.
    return arguments[0] if len(arguments) == 1 and isinstance(arguments[0], tuple) else arguments
