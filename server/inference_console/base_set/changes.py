"""Changes of the base set that people ask for: each becomes an operation, a command of ``base-set``."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from inference_console.base_set.operations import Operation, Operations, State
from inference_console.base_set.previews import (
    Addition,
    in_words,
    keep_files,
    preview_addition,
    preview_path,
    preview_removal,
    remove_preview,
    require_images,
)
from inference_console.base_set.private_folder import private_folder
from inference_console.settings import Settings
from inference_server.base_set.image_folder import check_name

KEPT_CHECK_S = 3600.0
MAX_KEPT_BYTES = 2**30  # of files that wait for a decision
_CLEANING_INTERVAL_S = 60.0
RUNNER = "Whoever runs this console can start it"


class ImpossibleError(Exception):
    """The console can't change the base set; the message says why, and what to do."""


class NotKeptError(Exception):
    """The check that a change refers to is not kept, not done or not about files; the message says what to do."""


@dataclass(kw_only=True, eq=False)
class _Checked:
    """What a check was about.

    Attributes:
        operation: The check.
        folder: The private folder of its files and of the preview.
        addition: The files to add; None: it was about removing images.
        until_s: When the files go, on the monotonic clock.
        confirmed: The change that was made of it; None: none was.
    """

    operation: Operation
    folder: Path
    addition: Addition | None
    until_s: float
    confirmed: Operation | None = None


class Changes:
    """Makes operations of what people ask for.

    Args:
        settings: What the console was started with.
        operations: Runs the operations.
    """

    def __init__(self, settings: Settings, operations: Operations) -> None:
        self._settings = settings
        self._operations = operations
        self._checked: dict[str, _Checked] = {}
        self._folders = contextlib.ExitStack()
        self._folder = Path()
        self._cleaning: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Make the private folder, and remove those of consoles that were killed."""
        if self._settings.base_data is not None and not self._settings.read_only:
            self._folder = await asyncio.to_thread(self._folders.enter_context, private_folder())
            self._cleaning = asyncio.create_task(self._clean())

    async def close(self) -> None:
        """Remove the private folder. The operations have ended."""
        if self._cleaning is not None:
            self._cleaning.cancel()
        await asyncio.to_thread(self._folders.close)

    async def check_addition(
        self, class_name: str, uploads: Sequence[tuple[str, bytes]], *, rename: bool, person: str
    ) -> Operation:
        """Find out what adding files to a class would do.

        Args:
            class_name: The class, which may be new.
            uploads: Each file's name and content.
            rename: Give another name to a file whose name is taken by another image, instead of refusing it.
            person: Who asks.

        Raises:
            ImpossibleError: The console can't change the base set, or too many files wait already.
            BaseDataError: A name can't be used, or is taken.
            BusyError: Too many operations wait.
            OSError: The disk is full.
        """
        base_data, folder = self._base_data(), self._new_folder()
        addition = await self._keep_files(folder, class_name, uploads, rename=rename)
        count = len(addition.files)
        return self._check(
            folder,
            addition,
            lambda: preview_addition(folder, base_data, addition),
            title=f"Check: add {_images(count)} to {class_name}",
            names=addition.names,
            person=person,
        )

    def check_removal(self, names: Sequence[str], *, person: str) -> Operation:
        """Find out what removing images would do.

        Raises:
            ImpossibleError, BusyError: As ``check_addition``.
            BaseDataError: There is no such image.
        """
        base_data, folder = self._base_data(), self._new_folder()
        names = require_images(base_data, names)
        return self._check(
            folder,
            None,
            lambda: preview_removal(folder, base_data, names),
            title=f"Check: remove {_said(names)}",
            names=names,
            person=person,
        )

    async def add(
        self, class_name: str, uploads: Sequence[tuple[str, bytes]], *, rename: bool, person: str
    ) -> Operation:
        """Add files to a class.

        Raises:
            ImpossibleError, BaseDataError, BusyError, OSError: As ``check_addition``.
        """
        base_data, folder = self._base_data(), self._new_folder()
        addition = await self._keep_files(folder, class_name, uploads, rename=rename)
        try:
            return self._add(addition, person, in_words(folder, base_data), lambda _: _remove(folder))
        except BaseException:
            _remove(folder)
            raise

    def confirm(self, check: Operation, *, person: str) -> Operation:
        """Make the change that a check was about. Asked twice, the same change is returned, unless it was refused.

        Raises:
            NotKeptError: The check has not ended well, or its files are gone.
            ImpossibleError, BusyError: As ``check_addition``.
        """
        checked = self._checked.get(check.id)
        if checked is None:
            raise NotKeptError("What was checked is not kept any more. Check it again.")
        if check.state is not State.DONE:
            raise NotKeptError("The check is not done, so nobody knows what the change would do. Wait for its end.")
        before = checked.confirmed
        if before is not None and before.state in {State.WAITING, State.RUNNING, State.DONE}:
            return before
        if checked.addition is None:
            checked.confirmed = self.remove(check.names, person=person)
        else:
            words = in_words(checked.folder, self._base_data())
            checked.confirmed = self._add(
                checked.addition, person, words, lambda state: _remove(checked.folder) if state is State.DONE else None
            )
        return checked.confirmed

    def remove(self, names: Sequence[str], *, person: str) -> Operation:
        """Move images out of the folder of base images.

        Raises:
            ImpossibleError, BusyError: As ``check_addition``.
            BaseDataError: There is no such image.
        """
        names = require_images(self._base_data(), names)
        return self._start("remove", names, title=f"Remove {_said(names)}", person=person)

    def forget(self, names: Sequence[str], *, person: str) -> Operation:
        """Remove images for good. They may lie in an older version only.

        Raises:
            ImpossibleError, BusyError: As ``check_addition``.
            BaseDataError: A name is none of a base image.
        """
        for name in names:
            check_name(name)
        return self._start("forget", names, title=f"Forget {_said(names)}", person=person)

    def roll_back(self, *, person: str) -> Operation:
        """Go back to the version before.

        Raises:
            ImpossibleError, BusyError: As ``check_addition``.
        """
        self._base_data()
        operation = Operation(
            command="rollback", arguments=self._repository(), title="Roll back to the version before", person=person
        )
        self._operations.start(operation)
        return operation

    def uploaded(self, operation: Operation, name: str) -> Path | None:
        """Find the file that a check was asked to add under a ``class/file name``; None: it is not kept."""
        checked = self._checked.get(operation.id)
        files = () if checked is None or checked.addition is None else checked.addition.files
        return next((file for file in files if file.name == name.partition("/")[2]), None)

    def confirmed(self, check: Operation) -> Operation | None:
        """Return the change that was made of a check; None: none was."""
        checked = self._checked.get(check.id)
        return None if checked is None else checked.confirmed

    def check_of(self, change: Operation) -> Operation | None:
        """Return the check that a change was made of, if it is kept; None: there is none."""
        return next((each.operation for each in self._checked.values() if each.confirmed is change), None)

    def is_kept(self, check: Operation) -> bool:
        """Tell whether a check may still be confirmed."""
        checked = self._checked.get(check.id)
        return checked is not None and (checked.confirmed is None or checked.confirmed.state is not State.DONE)

    def forget_names(self, names: Sequence[str]) -> None:
        """Keep no check that holds one of some names, of images that were forgotten."""
        for checked in list(self._checked.values()):
            if not {*names}.isdisjoint(checked.operation.names):
                self.drop(checked.operation)

    def drop(self, check: Operation) -> None:
        """Remove the files of a check, unless a change is being made of them."""
        checked = self._checked.get(check.id)
        if checked is None or (checked.confirmed is not None and not checked.confirmed.state.is_end):
            return
        del self._checked[check.id]
        _remove(checked.folder)

    def _base_data(self) -> Path:
        base_data, reason = self._settings.base_data, why_impossible(self._settings)
        if base_data is None or reason:
            raise ImpossibleError(reason)
        return base_data

    def _new_folder(self) -> Path:
        return self._folder / secrets.token_hex(8)

    async def _keep_files(
        self, folder: Path, class_name: str, uploads: Sequence[tuple[str, bytes]], *, rename: bool
    ) -> Addition:
        kept_bytes = await asyncio.to_thread(_size, self._folder) + sum(len(content) for _, content in uploads)
        if kept_bytes > MAX_KEPT_BYTES:
            raise ImpossibleError(
                "Too many checked files wait for a decision. Confirm or cancel other checks first; each goes after an "
                "hour."
            )
        return await asyncio.to_thread(keep_files, folder, self._base_data(), class_name, uploads, rename=rename)

    def _check(
        self,
        folder: Path,
        addition: Addition | None,
        preview: Callable[[], None],
        *,
        title: str,
        names: Sequence[str],
        person: str,
    ) -> Operation:
        queries = [] if self._settings.queries is None else ["--queries", str(self._settings.queries)]
        operation = Operation(
            command="check",
            arguments=[*self._common(preview_path(folder)), *queries],
            title=title,
            names=names,
            person=person,
            prepare=preview,
            clean_up=lambda _: _remove(folder) if addition is None else remove_preview(folder),
            in_words=in_words(folder, self._base_data()),
        )
        try:
            self._operations.start(operation)
        except BaseException:
            _remove(folder)
            raise
        self._checked[operation.id] = _Checked(
            operation=operation, folder=folder, addition=addition, until_s=time.monotonic() + KEPT_CHECK_S
        )
        return operation

    def _add(
        self, addition: Addition, person: str, words: Callable[[str], str], clean_up: Callable[[State], None]
    ) -> Operation:
        operation = Operation(
            command="add",
            arguments=[*self._common(self._base_data()), "--", addition.class_name, *map(str, addition.files)],
            title=f"Add {_images(len(addition.files))} to {addition.class_name}",
            names=addition.names,
            person=person,
            in_words=words,
            clean_up=clean_up,
        )
        self._operations.start(operation)
        return operation

    def _start(self, command: str, names: Sequence[str], *, title: str, person: str) -> Operation:
        operation = Operation(
            command=command,
            arguments=[*self._common(self._base_data()), "--", *names],
            title=title,
            names=names,
            person=person,
        )
        self._operations.start(operation)
        return operation

    def _repository(self) -> list[str]:
        return ["--model_repository", str(self._settings.model_repository)]

    def _common(self, base_data: Path) -> list[str]:
        return [*self._repository(), "--cache", str(self._settings.cache), "-data", str(base_data)]

    async def _clean(self) -> None:
        while True:
            await asyncio.sleep(_CLEANING_INTERVAL_S)
            now_s = time.monotonic()
            for checked in [each for each in self._checked.values() if each.until_s < now_s]:
                self.drop(checked.operation)


def why_impossible(settings: Settings) -> str:
    """Say why nobody can change the base set with a console; "" if it is possible."""
    if settings.read_only:
        return f"This console is read-only. {RUNNER} without --read_only."
    if settings.base_data is None:
        return f"This console knows no folder of reference images. {RUNNER} with -data."
    if not settings.model_repository.is_dir():
        return f"This console has no model repository. {RUNNER} with --model_repository."
    return ""


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _size(folder: Path) -> int:
    """Return the bytes that all uploaded files hold."""
    size_bytes = 0
    for kept in list(folder.iterdir()):
        with contextlib.suppress(FileNotFoundError):  # its check was dropped meanwhile
            size_bytes += sum(file.lstat().st_size for file in (kept / "files").iterdir())
    return size_bytes


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _said(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else _images(len(names))
