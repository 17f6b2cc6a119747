"""Triton's model control: loads and unloads the models of a running server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from inference_server.addresses import LOOPBACK
from inference_server.errors import ServerError
from inference_server.triton.access import Access
from inference_server.triton.arguments import GRPC_KEY_NAME

LOAD_TIMEOUT_S = 300.0
QUESTION_TIMEOUT_S = 10.0
LOOK_TIMEOUT_S = 1.0  # for the question that supervision asks again and again
_GRPC_KEY_HEADER = f"triton-grpc-protocol-{GRPC_KEY_NAME}"  # Triton asks for the prefix


class ModelControl:
    """Triton's model control over gRPC; over HTTP, other requests would wait while a model loads.

    Args:
        access: The owner's access to the server.

    Raises:
        ServerError: The gRPC client is not installed.
    """

    def __init__(self, access: Access) -> None:
        try:
            from tritonclient.grpc import InferenceServerClient
        except ImportError as error:
            raise ServerError(
                "the gRPC client is not installed. Install it: pip install 'tritonclient[grpc]'"
            ) from error
        # gRPC would use the proxy that http_proxy names even for loopback, and give it the key.
        self._client = InferenceServerClient(
            f"{LOOPBACK}:{access.grpc_port}", channel_args=[("grpc.enable_http_proxy", 0)]
        )
        self._headers = {_GRPC_KEY_HEADER: access.key}

    def load(self, model: str) -> None:
        """Load a model from the repository; unchanged versions keep running.

        Raises:
            ServerError: Triton could not load the model; the versions loaded before keep running.
        """
        with _explained(f"{model} can't be loaded"):
            self._client.load_model(model, headers=self._headers, client_timeout=LOAD_TIMEOUT_S)

    def unload(self, model: str) -> None:
        """Let a model finish its requests and end; new requests get 404.

        A step of the ensemble also finishes the requests that the ensemble has accepted.

        Raises:
            ServerError: The server gave no answer.
        """
        with _explained(f"{model} can't be unloaded"):
            self._client.unload_model(model, headers=self._headers, client_timeout=QUESTION_TIMEOUT_S)

    def is_ready(self, model: str, version: str = "") -> bool:
        """Ask whether a model, or one of its version folders, is ready.

        Raises:
            ServerError: The server gave no answer.
        """
        with _explained(f"the server does not say whether {model} is ready"):
            ready = self._client.is_model_ready(
                model, version, headers=self._headers, client_timeout=QUESTION_TIMEOUT_S
            )
        return bool(ready)

    def ready_versions(self) -> set[tuple[str, str]]:
        """Ask for the models and versions that are loaded and not being unloaded, whether or not their processes live.

        Raises:
            ServerError: The server gave no answer.
        """
        with _explained("the server does not say what it has loaded"):
            index = self._client.get_model_repository_index(headers=self._headers, client_timeout=LOOK_TIMEOUT_S)
        return {(each.name, each.version) for each in index.models if each.state == "READY"}

    def __enter__(self) -> ModelControl:
        return self

    def __exit__(self, *_: Any) -> None:
        self._client.close()


@contextlib.contextmanager
def _explained(failure: str) -> Iterator[None]:
    from tritonclient.utils import InferenceServerException

    try:
        yield
    except InferenceServerException as error:
        raise ServerError(f"{failure}: {error.message()}") from error
