"""Running the user's own code, which may raise anything."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from inference_export.descriptions import describe_error
from inference_export.errors import NetworkError, Terminated

FAILURES = (Exception, SystemExit)


@contextlib.contextmanager
def users_code(what: str, remedy: str = "") -> Iterator[None]:
    """Turn any exception of the user's code, also of ``sys.exit()``, into a message. Ctrl-C and SIGTERM pass through.

    Args:
        what: What has failed, in words.
        remedy: What to do, as a sentence.

    Raises:
        NetworkError: The code has raised an exception.
    """
    try:
        yield
    except (NetworkError, Terminated):
        raise
    except FAILURES as error:
        raise NetworkError(f"{what}, {describe_error(error)}.{remedy and ' '}{remedy}") from error
