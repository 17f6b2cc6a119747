"""A limit on the memory that reading a file may take."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def memory_limit(more_bytes: int) -> Iterator[None]:
    """Limit how much more memory this process can allocate.

    Args:
        more_bytes: Address space in bytes that may be added to the space in use.

    Raises:
        MemoryError: Python code allocates more; PyTorch raises RuntimeError instead.
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
