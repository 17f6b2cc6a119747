"""What a console is started with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from inference_console.security.tokens import User
from inference_export.base_set.embedding_cache import default_cache_folder

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8090
DEFAULT_SERVER_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a console is started with.

    Attributes:
        server_url: The inference server: ``http://host:port``.
        api_key: Key for the server, if a gateway in front of the server asks for one.
        base_data: The folder of base images; None: the console shows and changes no base images.
        model_repository: The model repository; the base set is not shown if it does not exist.
        queries: Images whose answers are compared before a change; None: none are.
        cache: Folder that keeps computed embeddings.
        read_only: Whether nobody may change the base set.
        users: Who may use the console; None: everybody who reaches it.
        host_names: Names, besides IP addresses and localhost, under which browsers reach the console.
    """

    server_url: str = DEFAULT_SERVER_URL
    api_key: str | None = None
    base_data: Path | None = None
    model_repository: Path = Path("model_repository")
    queries: Path | None = None
    cache: Path = field(default_factory=default_cache_folder)
    read_only: bool = False
    users: tuple[User, ...] | None = None
    host_names: tuple[str, ...] = ()
