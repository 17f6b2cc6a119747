"""Where and how ``classify`` writes results as they come, and how a run ends."""

import signal
import sys
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import click

from inference_client.classify import Classify
from inference_client.command_line.extras import require_package
from inference_client.command_line.options import in_options_words
from inference_client.command_line.progress import images_progress
from inference_client.command_line.results.destinations import (
    Destination,
    DestinationError,
    ResultsFile,
    StandardOutput,
)
from inference_client.command_line.results.encoding import ColumnsError, Csv, Encoding, JsonLines
from inference_client.command_line.results.parquet import PACKAGE, write_parquet
from inference_client.command_line.results.recording import Progress, StoppedError, record
from inference_client.command_line.results.resuming import Held, keep_csv, keep_json_lines, keep_results
from inference_client.errors import StreamError

# What a shell says of a process that a signal ended.
SIGNAL_EXIT = 128


class Form(Enum):
    """A form of results, with the ending of its files."""

    CSV = ".csv"
    JSON_LINES = ".jsonl"
    PARQUET = ".parquet"


def choose_form(*, as_csv: bool, as_json_lines: bool, file: Path | None) -> Form | None:
    """Choose the form that the options and the file's ending ask for; None for a table.

    Raises:
        click.UsageError: They contradict each other, or say nothing.
    """
    asked = {Form.CSV: as_csv, Form.JSON_LINES: as_json_lines}
    forms = [form for form, is_asked in asked.items() if is_asked]
    by_ending = next((form for form in Form if file is not None and file.suffix.lower() == form.value), None)
    if by_ending is not None and by_ending not in forms:
        forms.append(by_ending)
    if len(forms) > 1:
        raise click.UsageError(
            "the options name two forms of results: give one of --csv, --jsonl and -o FILE, or a FILE of the same form."
        )
    if file is not None and not forms:
        endings = ", ".join(form.value for form in Form)
        raise click.UsageError(f"-o {str(file)!r}: end the name in {endings}, or add --csv or --jsonl.")
    return next(iter(forms), None)


class Output:
    """Results that are written as they come.

    Args:
        form: Their form.
        file: The file; None for standard output.
        resume: Whether to go on with what the file holds.

    Raises:
        click.ClickException: The file exists without ``resume``, or can't be gone on with, or a package is missing.
    """

    def __init__(self, form: Form, file: Path | None, *, resume: bool) -> None:
        self._form = form
        self._file = file
        # Where results are kept as they come.
        self._kept_in = file
        if form is Form.PARQUET and file is not None:
            require_package(PACKAGE, extra="report")
            self._kept_in = file.with_name(f"{file.name}{Form.JSON_LINES.value}")
            if file.exists() and not (resume and self._kept_in.exists()):
                raise DestinationError(
                    f"{file} exists already, and is finished: a Parquet file can't be added to. Name another file."
                )
        self._held = Held()
        if resume and self._kept_in is not None:
            self._held = keep_results(self._kept_in, keep_csv if form is Form.CSV else keep_json_lines)
        self._encoding: Encoding = Csv(self._held.classes) if form is Form.CSV else JsonLines()
        self._resume = resume

    def write(self, server: Classify, files: Sequence[str]) -> int:
        """Classify files, write their results, and say on standard error how it ended.

        Returns:
            The exit status.
        """
        unsent = [file for file in files if self._encoding.file_name(file) not in self._held.files]
        already = len(files) - len(unsent)
        if already:
            click.echo(f"{self._kept_in} holds {already:,} of {len(files):,} images already.", err=True)
        done = Progress(failed=self._held.failed)
        # On a terminal, the results themselves show it.
        is_seen = self._file is None and sys.stdout.isatty()
        destination = self._destination()
        try:
            with images_progress(0 if is_seen else len(unsent)) as advance:
                record(
                    server,
                    unsent,
                    self._encoding,
                    destination,
                    progress=done,
                    versions=self._held.versions,
                    advance=advance,
                )
        except StreamError as error:
            reason, status = f"{in_options_words(error.message)} (status {error.status_code}).", 1
        except ColumnsError as error:
            reason, status = f"{error}. Write the other images into another file, or use --jsonl.", 1
        except DestinationError as error:
            if self._file is None:
                raise
            reason, status = error.message, 1
        except KeyboardInterrupt as stop:
            reason = "Interrupted."
            status = SIGNAL_EXIT + (signal.SIGTERM if isinstance(stop, StoppedError) else signal.SIGINT)
        else:
            reason, status = "", 0
        finally:
            destination.close()
        if reason:
            click.echo(
                f"Error: {reason} {self._holds(already + done.written, len(files), done.failed)}".rstrip(), err=True
            )
            return status
        return self._finish(done, len(files))

    def _destination(self) -> Destination:
        return StandardOutput() if self._kept_in is None else ResultsFile(self._kept_in, goes_on=self._resume)

    def _holds(self, written: int, images: int, failed: int) -> str:
        if not written:
            return ""
        without = f", {failed:,} of them without a result" if failed else ""
        if self._kept_in is None:
            return f"{written:,} of {images:,} images are done{without}."
        holds = f"{self._kept_in} holds {written:,} of {images:,} images{without}"
        return f"{holds}: go on with the same command and --resume."

    def _finish(self, done: Progress, images: int) -> int:
        if self._form is Form.PARQUET and self._file is not None and self._kept_in is not None and images:
            write_parquet(self._kept_in, self._file)
            if not done.may_pass:
                self._kept_in.unlink()
        if self._file is not None:
            click.echo(f"Written: {self._file} ({images:,} images)", err=True)
        if not done.failed:
            return 0
        says = f"{done.failed:,} of {images:,} images have no result; the reason is with each."
        if done.may_pass and self._file is not None:
            says += f" For {done.may_pass:,} of them it may pass: send them again with --resume."
        click.echo(f"Error: {says}", err=True)
        return 1
