"""A bound on the memory that reading a file may take, whatever the file does."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def memory_limit(more_bytes: int) -> Iterator[None]:
    """Let this process take only so much more memory; beyond that, what allocates fails.

    Args:
        more_bytes: Address space that may be added to what is in use now.

    Raises:
        MemoryError: Raised by what allocates; PyTorch raises a RuntimeError.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:  # not Linux
        yield
        return
    limits = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    limit = min([pages * resource.getpagesize() + more_bytes, *limits])
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
