"""``GET /version`` and ``GET /health``."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from inference_client.version import __version__
from inference_console.console import Console
from inference_console.problems import ProblemError
from inference_console.rest.answers import SERVER_FAILS, problems

_FOR_STRANGERS = "The inference server does not classify. Ask with a token to learn why."


class Health(BaseModel):
    """The server classifies."""

    status: str = Field(examples=["classifies"])


class Version(BaseModel):
    """What is served."""

    version: int | None = Field(description="The version that answers.", examples=[3])
    mode: str | None = Field(description="clustering or classification.", examples=["clustering"])
    threshold: float | None = Field(description="The version's threshold; null in classification mode.")
    classes: list[str] = Field(examples=[["face", "not_face"]])
    console: str = Field(description="The version of this software.", examples=["0.1.0"])


def routes(console: Console) -> APIRouter:
    """Make the routes that tell about the server."""
    router = APIRouter(tags=["service"])

    @router.get(
        "/health",
        summary="Ask the server to classify a small image",
        response_description="The server classifies.",
        responses=problems(400, *SERVER_FAILS),
    )
    async def health(request: Request) -> Health:
        """Answer 200 if the server really classifies. Needs no token, so that load balancers can ask."""
        state = await console.server.ask()
        if state.message:
            raise ProblemError(state.status, state.message if console.access.knows(request) else _FOR_STRANGERS)
        return Health(status="classifies")

    @router.get(
        "/version",
        summary="Say what is served",
        response_description="What is served.",
        responses=problems(400, *SERVER_FAILS),
        dependencies=[Depends(console.access.admit)],
    )
    async def version() -> Version:
        """Answer with the version, the threshold and the classes of the server's answers."""
        state = await console.server.ask()
        if state.message:
            raise ProblemError(state.status, state.message)
        return Version(
            version=state.version,
            mode=state.mode,
            threshold=state.threshold,
            classes=state.classes,
            console=__version__,
        )

    return router
