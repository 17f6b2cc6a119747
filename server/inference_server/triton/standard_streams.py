"""Standard input, output and error that are there, whatever this process was started with."""

from __future__ import annotations

import os


def open_standard_streams() -> None:
    """Put /dev/null where one of the three is closed.

    The next file or socket to be opened would get its number, in this process or in a child, and with it what is meant
    for the log. Call it before anything is opened.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
            os.set_inheritable(descriptor, True)
