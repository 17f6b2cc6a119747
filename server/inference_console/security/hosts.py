"""Refuses requests that a browser was tricked into: DNS rebinding, and forms and scripts of other sites (CSRF).

Source:
    OWASP Cheat Sheet Series, "Cross-Site Request Forgery Prevention": verifying origin with standard headers.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from inference_console.problems import ProblemError, problem_response

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = frozenset({"same-origin", "none"})  # none: typed into the address bar


class HostCheck:
    """Lets requests through whose Host is the console's, and whose Origin, if there is one, is the same.

    An IP address as Host is always the console's: a DNS name that an attacker rebinds to the console's address is none.

    Args:
        app: The application.
        names: The console's names, besides localhost.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "http" and (problem := self._refusal(scope, Headers(scope=scope))):
            await problem_response(problem)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> ProblemError | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return ProblemError(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"This console does not answer for {', '.join(hosts)[:200] or 'a request without a Host'}. Use its IP "
                f"address or localhost, or start it with --host_name NAME.",
            )
        if scope["method"] in _SAFE_METHODS:
            return None
        schemes = {"https"} if scope["scheme"] == "https" else {"http", "https"}  # a gateway's https may be untold
        origins = headers.getlist("origin")
        if any(_netloc(origin, schemes) != hosts[0].lower() for origin in origins):
            return _other_site()
        if any(site not in _OWN_SITE for site in headers.getlist("sec-fetch-site")):
            return _other_site()
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            parts = urlsplit(f"//{host}")
            name, _ = parts.hostname or "", parts.port
        except ValueError:
            return False
        if parts.path or parts.query or parts.fragment or "@" in host or not name:
            return False
        return name.rstrip(".") in self._names or _is_address(name)


def _other_site() -> ProblemError:
    return ProblemError(
        HTTPStatus.FORBIDDEN,
        "This request came from a page of another site. Open the console itself; programs need no Origin header.",
    )


def _netloc(origin: str, schemes: Collection[str]) -> str:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return ""
    return parts.netloc.lower() if parts.scheme in schemes else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
