"""Gives a running server's owner, and nobody else, the key to administer it: in a file that only the owner can read."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from inference_server.errors import ServerError
from inference_server.triton.access_folders import access_folders, is_trusted, make_folder
from inference_server.triton.arguments import RESTRICT_GRPC, restrictions

_LOOK_S = 0.5  # longest time that a look at a lock may hold it
# The gRPC protocols that are not always closed. Under supervision, only the owner may use gRPC.
_OTHER_PROTOCOLS = ("health", "metadata", "inference", "model-config", "statistics")


@dataclass(frozen=True, kw_only=True)
class Access:
    """The owner's access to a running ``inference-server``.

    Attributes:
        pid: Process id of ``inference-server``.
        grpc_port: Loopback port of Triton's gRPC endpoint, which answers nothing without the key.
        key: The key, random at each start.
        repository: The model repository, resolved.
        version: The version that the ensemble answers with.
        configs: The loaded configuration of each model, as from ``read_configs``.
    """

    pid: int
    grpc_port: int
    key: str
    repository: str
    version: int
    configs: dict[str, str]

    def restrictions(self) -> list[str]:
        """Return Triton's arguments that close its restricted APIs to everyone without the key."""
        closed = restrictions(self.key)
        closed[RESTRICT_GRPC] = f"{','.join(_OTHER_PROTOCOLS)},{closed[RESTRICT_GRPC]}"
        return [f"{option}={value}" for option, value in closed.items()]


def access_file(port: int) -> Path:
    """Return the path of the access file of this process's server on a port; only the user may enter the folder."""
    return access_folders()[0] / f"{port}.json"


def find_access_file(port: int) -> Path | None:
    """Find the access file of a running server of this user on a port, whatever variables it was started with."""
    for folder in access_folders():
        file = folder / f"{port}.json"
        if is_trusted(folder) and file.exists() and _is_claimed(file):  # a killed server leaves its file behind
            return file
    return None


class Claim:
    """A server's claim to a port: a lock, which commands take for a sign that the server runs.

    Args:
        port: The port.

    Raises:
        ServerError: Another ``inference-server`` of this user runs on the port, or the folder can't be written.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._descriptor = _open_lock(port)
        try:
            _lock(self._descriptor)
        except OSError as error:
            self.close()
            raise ServerError(
                f"another inference-server of yours runs on port {port}, on another address. reload-repository finds a "
                f"server by its port alone. Choose another --port."
            ) from error

    def renew(self) -> None:
        """Lock the file again if somebody has removed it: the end of a user's last session removes XDG_RUNTIME_DIR.

        Raises:
            ServerError: The folder can't be written, or another server has claimed the port meanwhile.
        """
        lock = _lock_file(access_file(self._port))
        with contextlib.suppress(OSError):
            if os.path.samestat(lock.stat(), os.fstat(self._descriptor)):
                return
        renewed = Claim(self._port)
        self._descriptor, renewed._descriptor = renewed._descriptor, self._descriptor
        renewed.close()

    def close(self) -> None:
        """Give up the claim."""
        os.close(self._descriptor)


@contextlib.contextmanager
def claim(port: int) -> Iterator[Claim]:
    """Be this user's only ``inference-server`` on a port, whatever the address, until the context ends.

    Raises:
        ServerError: Another ``inference-server`` runs on the port, or the folder can't be written.
    """
    with contextlib.closing(Claim(port)) as claimed:
        with contextlib.suppress(OSError):
            access_file(port).unlink()  # of a server that was killed; it would pass for this one's
        yield claimed


def _open_lock(port: int) -> int:
    lock = _lock_file(access_file(port))
    try:
        make_folder(lock.parent)
        return os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise _unwritable(lock, error) from error


def _lock_file(file: Path) -> Path:
    return file.with_suffix(".lock")


def _lock(descriptor: int) -> None:
    """Lock a file; wait a moment for somebody who only looks whether it is locked."""
    deadline_s = time.monotonic() + _LOOK_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() >= deadline_s:
                raise
        time.sleep(_LOOK_S / 10)


def _is_claimed(file: Path) -> bool:
    """Tell whether the server of an access file runs. Its process id does not: another process may have it by now."""
    try:
        descriptor = os.open(_lock_file(file), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def write_access(port: int, access: Access) -> None:
    """Write the access file of this process's server in one step, so that only its owner can read it.

    Raises:
        ServerError: The file can't be written.
    """
    _write(access_file(port), access)


def _write(file: Path, access: Access) -> None:
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        make_folder(file.parent)
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as output:
            json.dump(asdict(access), output)
        new.replace(file)
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> ServerError:
    return ServerError(
        f"{file} can't be written ({error.strerror}). Its folder must hold the key to administer this server. Set "
        f"XDG_RUNTIME_DIR to a writable folder."
    )


def read_access(port: int) -> Access:
    """Read the access to the server on a port.

    Raises:
        ServerError: No ``inference-server`` of this user runs there.
    """
    file = find_access_file(port)
    access = None if file is None else _read(file)
    if access is None:
        folders = [str(folder) for folder in access_folders()]
        raise ServerError(
            f"no inference-server of yours runs on port {port}. Its key would be in {port}.json in "
            f"{', '.join(folders[:-1])} or {folders[-1]}. Name the server's port with --port; if the server was "
            f"started with another XDG_RUNTIME_DIR or XDG_CACHE_HOME, set the same one here. If tritonserver was "
            f"started without inference-server, restart it to serve another version."
        )
    return access


def read_own_access(port: int) -> Access | None:
    """Read the access file of this process's server; None if somebody has removed or damaged it."""
    return _read(access_file(port))


def _read(file: Path) -> Access | None:
    try:
        return Access(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def find_servers(repository: Path) -> list[int]:
    """List the ports on which this user's ``inference-server`` serves a repository.

    Args:
        repository: The model repository, resolved.
    """
    files = [file for folder in access_folders() if is_trusted(folder) for file in folder.glob("*.json")]
    ports = []
    for port in sorted({int(file.stem) for file in files if file.stem.isdecimal()}):
        with contextlib.suppress(ServerError):
            if read_access(port).repository == str(repository):
                ports.append(port)
    return ports


def change_version(port: int, version: int) -> None:
    """Record the version that is served now, for ``inference-server`` and the next reload."""
    access = replace(read_access(port), version=version)
    _write(find_access_file(port) or access_file(port), access)
