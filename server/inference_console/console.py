"""What the routes of one console share."""

from __future__ import annotations

from inference_client import AsyncClassify
from inference_console.base_set.changes import Changes
from inference_console.base_set.operations import Operation, Operations, State
from inference_console.base_set.stored import StoredReader
from inference_console.base_set.thumbnails import Thumbnails
from inference_console.rendering import Pages
from inference_console.security.access import Access
from inference_console.server_state import ServerProbe
from inference_console.settings import Settings

CLIENT_ID = "console"


class Console:
    """What the routes of one console share.

    Attributes:
        settings: What the console was started with.
        access: Who may do what.
        classifier: Asks the server.
        server: What the server says of itself.
        pages: Renders the pages.
        stored: Reads the base set.
        thumbnails: Makes thumbnails of base images and of queries.
        operations: Runs the commands of ``base-set``.
        changes: Makes operations of what people ask for.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.access = Access(settings.users, read_only=settings.read_only)
        self.classifier = AsyncClassify(settings.server_url, client_id=CLIENT_ID, api_key=settings.api_key)
        self.server = ServerProbe(settings.server_url, settings.api_key)
        self.pages = Pages(settings, self.access)
        self.stored = StoredReader(settings.model_repository)
        self.thumbnails = Thumbnails()
        self.operations = Operations(self._after)
        self.changes = Changes(settings, self.operations)

    async def open(self) -> None:
        """Make what the console needs while it runs."""
        await self.changes.open()

    async def close(self) -> None:
        """End connections and children."""
        self.stored.close()
        await self.operations.close()
        await self.changes.close()
        await self.thumbnails.close()
        await self.classifier.close()
        await self.server.close()

    def _after(self, operation: Operation) -> None:
        """Keep nothing in memory that an operation may have changed or removed for good."""
        if operation.changes:
            self.stored.clear()
        if operation.command == "forget" and operation.state is State.DONE:
            self.thumbnails.clear()
            self.operations.forget_names(operation.names, but=operation)
            self.changes.forget_names(operation.names)
