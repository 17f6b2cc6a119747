"""Who asks, and what they may do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.requests import Request

from inference_console.problems import ProblemError
from inference_console.security.guesses import Guesses
from inference_console.security.sessions import COOKIE, Sessions
from inference_console.security.tokens import User, find_user

_BEARER = "bearer"
_FOUND = "visitor"


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who asks.

    Attributes:
        name: The name in the token file; "" where there is none.
        may_change: Whether the visitor may change the base set.
        has_session: Whether the visitor has logged in, and may log out.
    """

    name: str = ""
    may_change: bool = False
    has_session: bool = False


class Access:
    """Decides who asks, and what they may do.

    Args:
        users: Who may use the console; None: everybody who reaches it.
        read_only: Whether nobody may change the base set.
    """

    def __init__(self, users: Sequence[User] | None, *, read_only: bool) -> None:
        self._users = users
        self._read_only = read_only
        self._sessions = Sessions()
        self._guesses = Guesses()

    @property
    def asks_for_tokens(self) -> bool:
        """Whether visitors need a token."""
        return self._users is not None

    async def admit(self, request: Request) -> Visitor:
        """Return who asks, as ``require`` does: for ``Depends``, which would run ``require`` in a thread."""
        return self.require(request)

    async def admit_to_change(self, request: Request) -> Visitor:
        """Return who asks, as ``require_change`` does: for ``Depends``."""
        return self.require_change(request)

    def require(self, request: Request) -> Visitor:
        """Return who asks. A request with a wrong token counts once, however often this is called for it.

        Raises:
            ProblemError: 401: nobody that is known. 429: too many wrong tokens came from this address.
        """
        state = request.scope.setdefault("state", {})
        if _FOUND not in state:
            try:
                state[_FOUND] = visitor = self._find(request)
                state["user"] = visitor.name  # for the log
            except ProblemError as problem:
                state[_FOUND] = problem
        found: Visitor | ProblemError = state[_FOUND]
        if isinstance(found, ProblemError):
            raise found
        return found

    def _find(self, request: Request) -> Visitor:
        if self._users is None:
            return Visitor(may_change=not self._read_only)
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == _BEARER and token:
            return self._visitor(self._check(request, token.strip()), has_session=False)
        user = self._sessions.user(request.cookies.get(COOKIE, ""))
        if user is None:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "This console asks for a token. Programs send Authorization: Bearer TOKEN; people log in at login.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return self._visitor(user, has_session=True)

    def knows(self, request: Request) -> bool:
        """Tell whether the visitor is one that ``require`` lets in."""
        try:
            self.require(request)
        except ProblemError:
            return False
        return True

    def require_change(self, request: Request) -> Visitor:
        """Return who asks, if they may change the base set.

        Raises:
            ProblemError: As ``require``. 403: the visitor may classify only, or the console is read-only.
        """
        visitor = self.require(request)
        if self._read_only:
            raise ProblemError(
                HTTPStatus.FORBIDDEN, "This console was started with --read_only, so nothing can be changed."
            )
        if not visitor.may_change:
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                f"{visitor.name} may classify, but not change the base set. The role change in the token file allows "
                f"it.",
            )
        return visitor

    def log_in(self, request: Request, token: str) -> str:
        """Begin a session, and return its name for the cookie.

        Raises:
            ProblemError: 401: nobody has this token. 429: too many wrong tokens came from this address.
        """
        user = self._check(request, token.strip())
        request.scope.setdefault("state", {})["user"] = user.name
        return self._sessions.begin(user)

    def log_out(self, request: Request) -> None:
        """End the session of a request."""
        self._sessions.end(request.cookies.get(COOKIE, ""))

    def _visitor(self, user: User, *, has_session: bool) -> Visitor:
        may_change = user.may_change and not self._read_only
        return Visitor(name=user.name, may_change=may_change, has_session=has_session)

    def _check(self, request: Request, token: str) -> User:
        address = request.client.host if request.client else ""
        if wait_s := self._guesses.wait_s(address):
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"Too many wrong tokens came from this address. Try again in {wait_s} s.",
                headers={"Retry-After": str(wait_s)},
            )
        user = find_user(self._users or (), token)
        if user is None:
            self._guesses.count(address)
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "Nobody has this token here. Is it whole, and is it this console's?",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return user
