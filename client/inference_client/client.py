"""The options of ``Classify`` and ``AsyncClassify``."""

import math
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from inference_client.settings import read_settings

if TYPE_CHECKING:
    from inference_client.transport import Options

Results: TypeAlias = list[dict[str, Any]] | dict[str, str]


class Client:
    """The options of a client; see :class:`inference_client.Classify`."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 60,
        connect_timeout_s: float = 5,
        sim_thres: float | None = None,
        details: bool = False,
        client_id: str | None = None,
        api_key: str | None = None,
    ) -> None:
        self._settings = read_settings(
            url, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s, client_id=client_id, api_key=api_key
        )
        self._sim_thres = threshold_text(sim_thres)
        self._details = details

    def _options(self, *, sim_thres: float | None, details: bool | None) -> "Options":
        from inference_client.answers import NOTE, output_names, read_entry
        from inference_client.transport import Options

        details = self._details if details is None else details
        return Options(
            sim_thres=self._sim_thres if sim_thres is None else threshold_text(sim_thres),
            outputs=output_names(details=details),
            if_offered=(NOTE,) if details else (),
            read=partial(read_entry, details=details),
        )

    def _closed_error(self) -> RuntimeError:
        name = type(self).__name__
        return RuntimeError(f"this {name} is closed: make a new one, {name}({self._settings.url!r})")


def threshold_text(sim_thres: float | None) -> str | None:
    """Write a threshold as the text to send.

    As text, even NaN reaches the server, which refuses it by name; as a number, it would break the request's JSON.

    Raises:
        TypeError: Neither a number nor text.
        ValueError: Text that is not a number.
    """
    if sim_thres is None:
        return None
    try:
        return str(float(sim_thres))
    except OverflowError:
        return str(math.inf)
    except (TypeError, ValueError) as error:
        raise type(error)(f"sim_thres is {sim_thres!r}: give a number, -1 to 1") from error
