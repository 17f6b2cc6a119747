"""What the routes of one console share."""

from __future__ import annotations

from inference_client import AsyncClassify
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
        thumbnails: Makes thumbnails of images.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.access = Access(settings.users, read_only=settings.read_only)
        self.classifier = AsyncClassify(settings.server_url, client_id=CLIENT_ID, api_key=settings.api_key)
        self.server = ServerProbe(settings.server_url, settings.api_key)
        self.pages = Pages(settings, self.access)
        self.thumbnails = Thumbnails()

    async def close(self) -> None:
        """End connections and children."""
        await self.classifier.close()
        await self.server.close()
        await self.thumbnails.close()
