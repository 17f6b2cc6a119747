"""Options and option types of several commands."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from inference_client.settings import BAD_HEADER, FROM_FILE, HEADER_ARGUMENTS, KEY_INSTEAD, KEY_REMEDY

# What messages of the client tell a program, and what they tell whoever types a command.
_WORDS = {
    KEY_REMEDY: "Is the key in --api_key, or in the variable CLASSIFY_API_KEY, right?",
    KEY_INSTEAD: "give --api_key instead",
    **{BAD_HEADER.format(argument=name): BAD_HEADER.format(argument=f"--{name}") for name in HEADER_ARGUMENTS},
    **{
        FROM_FILE.format(argument=name): f'From a file, --{name} "$(cat FILE)" leaves the line break out'
        for name in HEADER_ARGUMENTS
    },
}

F = TypeVar("F", bound=Callable[..., Any])

# For click.command(context_settings=...).
COMMAND_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 120}

_LEAST_PERCENT = 5  # in place of a share: a smaller number is a slip


class FiniteFloatRange(click.FloatRange):
    """A float in a range, neither nan nor infinite; click's own range lets nan through."""

    name = "float"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert a value, or fail as wrong usage."""
        try:
            number = float(super().convert(value, param, ctx))
        except click.BadParameter as error:
            if self.max == 1 and (share := _as_share(value)):
                self.fail(f"{error.message} For {value} percent, write {share}.", param, ctx)
            raise
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def in_options_words(message: str) -> str:
    """Name the options of a command where a message names the client's arguments."""
    for words, options_words in _WORDS.items():
        message = message.replace(words, options_words)
    return message


def _as_share(value: Any) -> str:
    """Return a percentage as a share of 1; "" if the value is hardly a percentage."""
    try:
        percent = float(value)
    except ValueError:
        return ""
    return f"{percent / 100:g}" if _LEAST_PERCENT <= percent <= 100 else ""  # noqa: PLR2004 - percent


def server_option(command: F) -> F:
    """Add ``-ip``, the server's address, as ``url``."""
    return click.option(
        "-ip", "--server_ip", "url", metavar="URL", required=True, help="The server: http://host:port."
    )(command)


def request_options(command: F) -> F:
    """Add the options that apply to every request: ``sim_thres``, ``client_id``, ``api_key`` and ``timeout_s``."""
    for option in reversed(_REQUEST_OPTIONS):
        command = option(command)
    return command


_REQUEST_OPTIONS = (
    click.option(
        "--sim_thres",
        metavar="FLOAT",
        type=FiniteFloatRange(-1, 1),
        help="Lowest cosine similarity at which a base image counts as a match. Clustering mode only; the default is "
        "the server's threshold.",
    ),
    click.option("--client_id", metavar="TEXT", help="Name of this client in the server's metrics and access log."),
    click.option(
        "--api_key",
        metavar="TEXT",
        envvar="CLASSIFY_API_KEY",
        show_envvar=True,
        help="The server's API key. Prefer the variable: other users of this computer can read an argument.",
    ),
    click.option(
        "--timeout_s",
        metavar="SECONDS",
        type=FiniteFloatRange(min=0, min_open=True),
        default=60.0,
        help="Longest time to wait for one request, including retries. A request holds at most as many images as the "
        "server takes at once.",
    ),
)
