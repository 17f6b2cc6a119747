"""Sessions of people who have logged in."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass

from inference_console.security.tokens import User

COOKIE = "console_session"
LIFETIME_S = 12 * 3600
_MAX_SESSIONS = 10_000


@dataclass(frozen=True)
class _Session:
    user: User
    ends_s: float


class Sessions:
    """Sessions in memory: a restart of the console ends them all, and so does ``LIFETIME_S``."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    def begin(self, user: User) -> str:
        """Begin a session, and return its secret name for the cookie."""
        while len(self._sessions) >= _MAX_SESSIONS:
            self._sessions.popitem(last=False)
        name = secrets.token_urlsafe(32)
        self._sessions[name] = _Session(user, time.monotonic() + LIFETIME_S)
        return name

    def user(self, name: str) -> User | None:
        """Return whose session it is; None if there is none of that name any more."""
        session = self._sessions.get(name)
        if session is None or session.ends_s < time.monotonic():
            self._sessions.pop(name, None)
            return None
        return session.user

    def end(self, name: str) -> None:
        """End a session."""
        self._sessions.pop(name, None)
