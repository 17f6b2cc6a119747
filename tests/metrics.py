"""Reading a server's metrics after the models have recorded what they answered: they do so in the background."""

from __future__ import annotations

import time
from urllib.request import urlopen

SETTLED_S = 0.4  # many times as long as answers wait to be recorded together
TIMEOUT_S = 30.0


def settled_metrics(url: str) -> str:
    """Read the metrics of a server that nobody sends requests to, once our own have not changed for ``SETTLED_S``."""
    deadline_s = time.monotonic() + TIMEOUT_S
    ours: list[str] = []
    while True:
        before = ours
        with urlopen(url, timeout=TIMEOUT_S) as answer:
            text = answer.read().decode()
        ours = [line for line in text.splitlines() if line.startswith("classify_")]
        if ours and ours == before:
            return text
        assert time.monotonic() < deadline_s, "the metrics change without end"
        time.sleep(SETTLED_S)
