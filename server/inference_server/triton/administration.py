"""Access to a running server's model control: its key, where the key lies, and what can be asked with it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from inference_server.triton.tritonserver import GRPC_KEY_NAME, LOOPBACK, RESTRICT_GRPC, ServerError, restrictions

GRPC_KEY_HEADER = f"triton-grpc-protocol-{GRPC_KEY_NAME}"  # the prefix is Triton's
# What gRPC offers beside: it is for the owner alone.
OTHER_PROTOCOLS = ("health", "metadata", "inference", "model-config", "statistics")
LOAD_TIMEOUT_S = 300.0
QUESTION_TIMEOUT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Access:
    """How the owner of a running ``inference-server`` reaches its model control.

    Args:
        pid: Process id of ``inference-server``.
        grpc_port: Loopback port of Triton's gRPC endpoint, all of which is closed without the key.
        key: A fresh random one at each start.
        repository: The model repository, resolved.
        version: The version that the ensemble answers with.
        configs: Model name to the configuration that is loaded, version numbers blanked.
    """

    pid: int
    grpc_port: int
    key: str
    repository: str
    version: int
    configs: dict[str, str]

    def restrictions(self) -> list[str]:
        """Give the arguments of Triton that close what only the owner may use."""
        closed = restrictions(self.key)
        closed[RESTRICT_GRPC] = f"{','.join(OTHER_PROTOCOLS)},{closed[RESTRICT_GRPC]}"
        return [f"{option}={value}" for option, value in closed.items()]


def new_key() -> str:
    """Make a key that nobody can guess."""
    return secrets.token_urlsafe(32)


def access_file(port: int) -> Path:
    """Say where the access to the server on a port lies; its folder is the user's alone."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(runtime or cache) / "inference-server" / f"{port}.json"


@contextlib.contextmanager
def claim(port: int) -> Iterator[None]:
    """Be the only ``inference-server`` of this user's on a port, whatever the address.

    Raises:
        ServerError: There is another, or the folder can't be written.
    """
    lock = access_file(port).with_suffix(".lock")
    try:
        lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise _unwritable(lock, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ServerError(
                f"another inference-server of yours runs on port {port}, on another address. Choose another --port, by "
                f"which reload-repository tells them apart."
            ) from error
        yield
    finally:
        os.close(descriptor)


def write_access(file: Path, access: Access) -> None:
    """Write the file in one step, readable for its owner alone.

    Raises:
        ServerError: It can't be written.
    """
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as output:
            json.dump(asdict(access), output)
        new.replace(file)
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> ServerError:
    return ServerError(
        f"{file} can't be written ({error.strerror}); the key of this server's administration is kept in its folder. "
        f"Set XDG_RUNTIME_DIR to a folder that can."
    )


def read_access(port: int) -> Access:
    """Read how to reach the server on a port.

    Raises:
        ServerError: No ``inference-server`` of this user's runs there.
    """
    file = access_file(port)
    try:
        access = Access(**json.loads(file.read_text(encoding="utf-8")))
        os.kill(access.pid, 0)
    except (OSError, ValueError, TypeError) as error:
        raise ServerError(
            f"no inference-server of yours runs on port {port}: none has left its key in {file}. Name its port with "
            f"--port; a tritonserver that was started otherwise has to be restarted to serve another version."
        ) from error
    return access


def change_version(port: int, version: int) -> None:
    """Note which version is served now, for ``inference-server`` and for the next change."""
    write_access(access_file(port), replace(read_access(port), version=version))


class ModelControl:
    """Triton's model control over gRPC: over HTTP a load holds up other requests for as long as it takes.

    Args:
        access: Of the server.

    Raises:
        ServerError: There is no gRPC client here.
    """

    def __init__(self, access: Access) -> None:
        try:
            from tritonclient.grpc import InferenceServerClient
        except ImportError as error:
            raise ServerError("gRPC's client is missing: pip install 'tritonclient[grpc]'") from error
        self._client = InferenceServerClient(f"{LOOPBACK}:{access.grpc_port}")
        self._headers = {GRPC_KEY_HEADER: access.key}

    def load(self, model: str) -> None:
        """Load a model as it lies in the repository; its versions that have not changed stay as they are.

        Raises:
            ServerError: Triton could not; what was loaded before goes on.
        """
        with _explained(f"{model} can't be loaded"):
            self._client.load_model(model, headers=self._headers, client_timeout=LOAD_TIMEOUT_S)

    def unload(self, model: str) -> None:
        """Have a model finish its requests and end, an ensemble's steps those of the ensemble too; new ones are 404.

        Raises:
            ServerError: No answer.
        """
        with _explained(f"{model} can't be unloaded"):
            self._client.unload_model(model, headers=self._headers, client_timeout=QUESTION_TIMEOUT_S)

    def is_ready(self, model: str, version: int | None = None) -> bool:
        """Ask whether a model, or one version of it, is ready.

        Raises:
            ServerError: No answer.
        """
        with _explained(f"{model} is not known to be ready"):
            ready = self._client.is_model_ready(
                model, str(version or ""), headers=self._headers, client_timeout=QUESTION_TIMEOUT_S
            )
        return bool(ready)

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    def __enter__(self) -> ModelControl:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    from tritonclient.utils import InferenceServerException

    try:
        yield
    except InferenceServerException as error:
        raise ServerError(f"{what}: {error.message()}") from error
