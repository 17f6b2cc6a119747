"""Makes sure that standard input, output and error are open."""

from __future__ import annotations

import os


def open_standard_streams() -> None:
    """Open /dev/null in place of each stream that is closed.

    Otherwise the next file or socket would get the stream's number, and with it the text of the log. Call this function
    before anything else opens a file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(descriptor, True)
