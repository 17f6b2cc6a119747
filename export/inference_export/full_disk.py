"""Telling a full disk from other errors of writing a file."""

from __future__ import annotations

import errno

REASONS = {
    errno.ENOSPC: "the disk is full. Free some space there",
    errno.EDQUOT: "the quota of this user is used up. Free some space there",
    errno.EFBIG: "files may not be that long (see ulimit -f). Raise that limit",
}


def find_full_disk(error: BaseException | None) -> OSError | None:
    """Return the error among ``error`` and its causes that reports a full disk; None: the disk is not full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in REASONS:
            return error
        error = error.__cause__ or error.__context__
    return None
