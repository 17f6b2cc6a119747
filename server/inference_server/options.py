"""The option that names a server, for the commands that start or change one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

DEFAULT_PORT = 8080


def port_option(**attributes: Any) -> Callable[[Any], Any]:
    """Give a command ``--port``."""
    return click.option("--port", type=click.IntRange(1, 65535), default=DEFAULT_PORT, **attributes)
