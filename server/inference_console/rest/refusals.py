"""What the rooms of the base set raise, as problems of a request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from http import HTTPStatus

from inference_client.command_line.formatting import printable
from inference_console.base_set import operations, thumbnails
from inference_console.base_set.changes import ImpossibleError, NotKeptError
from inference_console.base_set.previews import NameTakenError, NoSuchImageError
from inference_console.base_set.stored import NoBaseSetError
from inference_console.problems import ProblemError
from inference_export.errors import BaseDataError

_RETRY = {"Retry-After": "5"}


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Raise a ``ProblemError`` for what the context raises."""
    try:
        yield
    except (NoSuchImageError, thumbnails.NoThumbnailError) as error:
        raise ProblemError(HTTPStatus.NOT_FOUND, str(error)) from error
    except (NameTakenError, ImpossibleError, NotKeptError, NoBaseSetError) as error:
        raise ProblemError(HTTPStatus.CONFLICT, str(error)) from error
    except BaseDataError as error:
        raise ProblemError(HTTPStatus.BAD_REQUEST, printable(str(error))) from error
    except (operations.BusyError, thumbnails.BusyError) as error:
        raise ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, str(error), headers=_RETRY) from error
    except OSError as error:
        reason = error.strerror or "it is not reached"
        raise ProblemError(
            HTTPStatus.INSUFFICIENT_STORAGE, f"The files can't be kept: {reason}. Nothing has changed."
        ) from error
