"""Watches the folder of base images, and has the base set follow it.

The folder is looked at again and again: on network volumes, and when a volume is mounted, the system announces nothing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from inference_server.base_set.report import change_text
from inference_server.base_set.snapshots import Snapshot, take_snapshot
from inference_server.base_set.sync_process import STOP_TIMEOUT_S, SyncResult
from inference_server.base_set.watch_metrics import CHANGED, REFUSED, UNCHANGED, WatchMetrics
from inference_server.messages import say

QUIET_S = 1.0
# Pauses last at least this many times as long as what they follow, so that watching a large folder takes 3 % of a core.
PAUSE_FACTOR = 30
FIRST_RETRY_S = 10.0
LONGEST_RETRY_S = 600.0
LAST_LOOK_S = STOP_TIMEOUT_S + 5.0

Sync = Callable[[threading.Event], SyncResult | None]


class QuietRule:
    """Decides from snapshots when to sync: when a changed folder has been quiet, or a refused sync may be retried.

    A refused sync is retried although the folder is the same, ever more rarely: another command may have held the
    repository, the disk may have been full, or somebody may have allowed the change with ``base-set sync --yes``.
    """

    def __init__(self) -> None:
        self._last: Snapshot | None = None
        self._synced: Snapshot | None = None
        self._refused: Snapshot | None = None
        self._retry_s = 0.0
        self._pause_s = 0.0

    @property
    def follows(self) -> bool:
        """Whether the folder is as it was at the last sync that was not refused."""
        return self._last is not None and self._last == self._synced

    @property
    def was_refused(self) -> bool:
        """Whether the folder is as it was when a sync was refused, and no other sync has come since."""
        return self._last is not None and self._last == self._refused

    def is_due(self, snapshot: Snapshot, now_s: float) -> bool:
        """Tell whether to sync now.

        Args:
            snapshot: A snapshot, taken at least ``QUIET_S`` after the one of the last call.
            now_s: The present time of ``time.monotonic``.
        """
        is_quiet = snapshot == self._last
        self._last = snapshot
        if not is_quiet or snapshot == self._synced:
            return False
        return snapshot != self._refused or now_s >= self._retry_s

    def note_sync(self, *, refused: bool, began_s: float, now_s: float) -> None:
        """Note a sync that began after the last snapshot, and has ended now."""
        if not refused:
            self._synced, self._refused = self._last, None
            return
        self._synced = None  # a sync that failed late may have changed the base set
        longer_s = self._pause_s * 2 if self.was_refused else FIRST_RETRY_S
        self._pause_s = min(longer_s, LONGEST_RETRY_S)
        self._retry_s = now_s + max(self._pause_s, PAUSE_FACTOR * (now_s - began_s))
        self._refused = self._last


class FolderWatch:
    """Has the base set follow a folder, on a thread of its own.

    Args:
        folder: The folder of base images.
        sync: Makes the base set equal to the folder; ends early, and returns None, when the event is set.
        port: Port of the server that is to answer with the base set.
        metrics: Counts the syncs.
        quiet_s: Shortest time between two looks at the folder.
    """

    def __init__(self, folder: Path, sync: Sync, *, port: int, metrics: WatchMetrics, quiet_s: float = QUIET_S) -> None:
        self._folder = folder
        self._sync = sync
        self._port = port
        self._metrics = metrics
        self._quiet_s = quiet_s
        self._rule = QuietRule()
        self._looked_s = 0.0
        self._stopping = threading.Event()
        self._complaint = ""  # the refusal that was said last; "" once the base set follows the folder again

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Watch until the context ends; a sync that is under way is ended, and waited for."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join(LAST_LOOK_S)  # a folder on a volume that does not answer must not hold up the end

    def _watch(self) -> None:
        while not self._stopping.is_set():
            began_s = time.monotonic()
            self._look()
            pause_s = PAUSE_FACTOR * (self._looked_s - began_s)
            self._stopping.wait(max(self._quiet_s, pause_s))

    def _look(self) -> None:
        """Look once at the folder, and sync if it is time."""
        snapshot = take_snapshot(self._folder)
        self._looked_s = time.monotonic()
        is_due = self._rule.is_due(snapshot, self._looked_s)
        self._note_following()
        if not is_due:
            return
        result = self._sync(self._stopping)
        if result is None:
            return
        refusal = result.refusal or self._not_served(result)
        is_said = self._rule.was_refused and refusal == self._complaint
        self._rule.note_sync(refused=bool(refusal), began_s=self._looked_s, now_s=time.monotonic())
        if refusal or result.outcome is None:
            self._metrics.count_sync(REFUSED)
            self._complaint = refusal
            if not is_said:
                say(f"the base set stays as it is: {refusal}")
            return
        changed = result.outcome.version != result.outcome.before
        self._metrics.count_sync(CHANGED if changed else UNCHANGED)
        if changed:
            say(f"{self._folder} has changed: {change_text(result.outcome)}")
            self._complaint = ""
        self._note_following()

    def _note_following(self) -> None:
        follows = self._rule.follows
        self._metrics.note_following(follows)
        if follows and self._complaint:
            say(f"the base set follows {self._folder} again")
            self._complaint = ""

    def _not_served(self, result: SyncResult) -> str:
        if result.outcome is None or self._port in result.outcome.servers:
            return ""
        return (
            f"version {result.outcome.version} is in the repository, but the server on port {self._port} was not found "
            f"by its access file"
        )
