"""Running code of the user's own, which may raise anything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from inference_export.descriptions import describe_error
from inference_export.errors import NetworkError, Terminated

FAILURES = (Exception, SystemExit)


@contextlib.contextmanager
def users_code(what: str, remedy: str = "") -> Iterator[None]:
    """Turn whatever the user's code raises, an end of the program as well, into a message; Ctrl-C and SIGTERM pass.

    Args:
        what: What has failed then, in words.
        remedy: What to do, as a sentence.

    Raises:
        NetworkError: It failed.
    """
    try:
        yield
    except (NetworkError, Terminated):
        raise
    except FAILURES as error:
        raise NetworkError(f"{what}, {describe_error(error)}.{remedy and ' '}{remedy}") from error
