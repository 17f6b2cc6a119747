"""The metrics of watching a folder: on a port of their own, since only models can add to Triton's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from inference_server.errors import ServerError

WATCH_PACKAGES = ("prometheus-client",)  # of the extra `server`
CHANGED, UNCHANGED, REFUSED = "changed", "unchanged", "refused"


class WatchMetrics:
    """Counts syncs, and tells whether what is served follows the folder."""

    def __init__(self) -> None:
        # Imported here: a server that does not watch does not need the package.
        from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics

        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._syncs = Counter(
            "classify_base_set_syncs", "Syncs with the folder of base images", ["result"], registry=self.registry
        )
        for result in (CHANGED, UNCHANGED, REFUSED):
            self._syncs.labels(result)  # a series that begins with its first increase shows no increase
        self._last = Gauge(
            "classify_base_set_last_sync_timestamp_seconds",
            "Time of the last sync that was not refused; 0 before the first",
            registry=self.registry,
        )
        self._follows = Gauge(
            "classify_base_set_follows_folder",
            "1 if a sync has taken up the folder as it is now, 0 if a change waits or was refused",
            registry=self.registry,
        )

    def count_sync(self, result: str) -> None:
        """Count a sync that has ended.

        Args:
            result: ``CHANGED``, ``UNCHANGED`` or ``REFUSED``.
        """
        self._syncs.labels(result).inc()
        if result != REFUSED:
            self._last.set_to_current_time()

    def note_following(self, follows: bool) -> None:
        """Note whether the base set is that of the folder as it is now."""
        self._follows.set(follows)

    @contextlib.contextmanager
    def served(self, address: str, port: int) -> Iterator[None]:
        """Answer Prometheus until the context ends.

        Raises:
            ServerError: Another program listens on the port.
        """
        from prometheus_client import start_http_server

        try:
            server, thread = start_http_server(port, address, self.registry)
        except OSError as error:
            raise ServerError(
                f"{address}:{port} can't be listened on ({error.strerror}). Choose another --watch_metrics_port."
            ) from error
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
