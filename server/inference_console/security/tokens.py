"""The file of tokens: who may use the console, and what for."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CLASSIFY, CHANGE = "classify", "change"
MIN_TOKEN_LENGTH = 32
_MAX_BYTES = 2**20
_EXAMPLE = "Each line is NAME ROLE TOKEN, for example: ward-7 classify 4f0c...; ROLE is classify or change"
_NEW_TOKEN = "python3 -c 'import secrets; print(secrets.token_hex(32))'"  # noqa: S105  (a command)


class TokenFileError(Exception):
    """The file of tokens can't be used; the message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody with a token.

    Attributes:
        name: The name, as logs and operations show it.
        may_change: Whether the user may change the base set.
        digest: SHA-256 of the token. The token itself is not kept.
    """

    name: str
    may_change: bool
    digest: bytes


def read_token_file(file: Path) -> tuple[User, ...]:
    """Read who may use the console.

    Args:
        file: A text file. Each line holds a name, a role (``classify`` or ``change``) and a token of at least
            ``MIN_TOKEN_LENGTH`` printable characters; empty lines, and lines that begin with #, are skipped.

    Raises:
        TokenFileError: The file can't be read, others may read it, or a line is wrong. No message quotes a token.
    """
    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            content = opened.read(_MAX_BYTES + 1)
            text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise TokenFileError(f"{file} can't be read as a file of tokens: {reason}. {_EXAMPLE}.") from error
    if mode & stat.S_IROTH:
        raise TokenFileError(f"{file} can be read by every user of this machine. Close it: chmod o-rwx {file}")
    if mode & stat.S_IWOTH:
        raise TokenFileError(f"{file} can be written by every user of this machine. Close it: chmod o-rwx {file}")
    if len(content) > _MAX_BYTES:
        raise TokenFileError(f"{file} is longer than {_MAX_BYTES} bytes. {_EXAMPLE}.")
    users: list[User] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            users.append(_read_line(line, f"{file}, line {number}"))
    if not users:
        raise TokenFileError(f"{file} names nobody. {_EXAMPLE}. A new token: {_NEW_TOKEN}")
    for what, values in (("name", [user.name for user in users]), ("token", [user.digest for user in users])):
        if len(set(values)) < len(values):
            raise TokenFileError(f"{file}: two lines have the same {what}. Give everybody one of their own.")
    return tuple(users)


def find_user(users: Iterable[User], token: str) -> User | None:
    """Find whose token it is, in a time that tells nothing about the tokens."""
    digest = _digest(token)
    found = None
    for user in users:
        if hmac.compare_digest(user.digest, digest):
            found = user
    return found


def _read_line(line: str, where: str) -> User:
    # No message quotes a word of the line: where words are swapped, any of them may be the token.
    fields = line.split()
    if len(fields) != 3:  # noqa: PLR2004 - as the message says
        raise TokenFileError(f"{where} holds {len(fields)} words. {_EXAMPLE}.")
    name, role, token = fields
    if not name.isprintable():
        raise TokenFileError(f"{where}: the name has characters that can't be printed. {_EXAMPLE}.")
    if role not in {CLASSIFY, CHANGE}:
        raise TokenFileError(f"{where}: the second word is no role. {_EXAMPLE}.")
    if len(token) < MIN_TOKEN_LENGTH or not (token.isascii() and token.isprintable()):
        raise TokenFileError(
            f"{where}: the token is short or not plain ASCII. It needs at least {MIN_TOKEN_LENGTH} characters, "
            f"chosen by chance: {_NEW_TOKEN}"
        )
    return User(name=name, may_change=role == CHANGE, digest=_digest(token))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
