"""The command ``classify-evaluate``."""

import errno
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from inference_client.command_line.extras import MissingExtraError, require_extras
from inference_client.command_line.formatting import printable
from inference_client.command_line.options import request_options, server_option
from inference_client.command_line.progress import progress
from inference_client.settings import read_settings
from inference_client.version import __version__
from inference_evaluation.asking import Answers, EvaluationError, ask
from inference_evaluation.figures import Figures, compute_figures
from inference_evaluation.labelled_images import read_labelled_images
from inference_evaluation.leaks import find_copies
from inference_evaluation.predictions_file import write_predictions
from inference_evaluation.report import words
from inference_evaluation.report.page import Setting, render

FIGURES_FILE, PREDICTIONS_FILE, PAGE_FILE = "evaluation.json", "predictions.csv", "report.html"
TERMINATED_EXIT_CODE = 128 + signal.SIGTERM
CONNECT_TIMEOUT_S = 5.0
CLIENT_ID = "evaluation"


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 120},
    no_args_is_help=True,
)
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@server_option
@click.option(
    "-data",
    "--base_data",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The server's base images, a folder for each class: shown beside the errors that resemble them, and compared "
    "with DIR, in which there should be no copies of them.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("evaluation"),
    help="Folder for what comes out; made if it is not there.",
)
@request_options
@click.version_option(__version__, prog_name="classify-evaluate")
def main(
    *,
    folder: Path,
    url: str,
    base_data: Path | None,
    out: Path,
    sim_thres: float | None,
    client_id: str | None,
    api_key: str | None,
    timeout_s: float,
) -> None:
    """Measure how good a server's answers are, on images whose classes are known.

    DIR holds a folder for each class, named as the server names it, with images inside. A folder of another name is a
    class that the server does not know: nothing should match its images.

    \b
    Writes into --out:
      report.html       the findings as one page, which needs no other file and no network
      evaluation.json   every figure
      predictions.csv   every image with its answer and the evidence for it

    \b
    Examples:
      classify-evaluate queries/ -ip http://localhost:8080
      classify-evaluate queries/ -ip http://localhost:8080 -data base/ --out monday/

    Files of an earlier evaluation in --out are replaced at the end, when everything is there.

    All requests, those that try other thresholds as well, come from the client "evaluation", unless --client_id says
    otherwise: so they can be told apart in the server's access log and metrics.

    Exit status: 0 evaluated, 1 failed (nothing written), 2 wrong usage.
    """  # noqa: D301  (click wants the backspace itself)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED_EXIT_CODE))  # so that nothing is left behind
    try:
        require_extras("report")
    except MissingExtraError as error:
        raise click.ClickException(str(error)) from error
    try:
        settings = read_settings(
            url,
            timeout_s=timeout_s,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            client_id=CLIENT_ID if client_id is None else client_id,
            api_key=api_key,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        labelled = read_labelled_images(folder)
        if not labelled.images:
            raise click.UsageError(f"{folder} holds no images: make a folder for each class in it, with images inside.")
        copies = None if base_data is None else find_copies(labelled.images, base_data)
        with _replacing(out) as staging:
            with progress("Evaluating", len(labelled.images)) as advance:
                answers = ask(settings, labelled.images, sim_thres=sim_thres, progress=advance)
            figures = compute_figures(answers, sim_thres=sim_thres, copies=copies)
            setting = Setting(
                folder=os.fspath(folder),
                url=settings.url,
                base_data=base_data,
                evaluated=datetime.now().astimezone(),
                version=__version__,
                empty_classes=sorted(set(labelled.classes) - {image.truth for image in labelled.images}),
                notes=labelled.notes,
            )
            _write(staging, figures, answers, setting)
    except EvaluationError as error:
        raise click.ClickException(f"{error} Nothing was written.") from error
    except OSError as error:
        where = error.filename or out
        raise click.ClickException(f"{where}: {error.strerror or error}. Nothing was written.") from error
    click.echo(_summary(figures, out))


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Give a folder within ``out``, which may be a mount, to write into; at the end, what is in it takes its place.

    Raises:
        OSError: ``out`` can't be written, or one of the files can't be replaced; before anything is asked.
    """
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    for name in (FIGURES_FILE, PREDICTIONS_FILE, PAGE_FILE):
        if (out / name).is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(out / name))
    try:
        with tempfile.TemporaryDirectory(prefix=".staging-", dir=out) as name:
            staging = Path(name)
            yield staging
            for file in sorted(staging.iterdir()):
                file.replace(out / file.name)
    finally:
        if is_new:
            with suppress(OSError):
                out.rmdir()  # only where nothing has come into it


def _write(folder: Path, figures: Figures, answers: Answers, setting: Setting) -> None:
    about = {**asdict(setting), "base_data": None if setting.base_data is None else os.fspath(setting.base_data)}
    about["evaluated"] = setting.evaluated.isoformat(timespec="seconds")
    text = json.dumps({"setting": about, **asdict(figures)}, indent=1, allow_nan=False)
    (folder / FIGURES_FILE).write_text(text + "\n", encoding="utf-8")
    write_predictions(folder / PREDICTIONS_FILE, answers.predictions, figures.server_classes)
    (folder / PAGE_FILE).write_text(render(figures, answers.predictions, setting), encoding="utf-8")


def _summary(figures: Figures, out: Path) -> str:
    lines = [
        words.accuracy(figures),
        *words.cautions(figures),
        *(words.recommendation(figures) if figures.classified else []),
        f"Written: {out / PAGE_FILE}, {FIGURES_FILE}, {PREDICTIONS_FILE}",
    ]
    return "\n".join(printable(line) for line in lines)


if __name__ == "__main__":
    main(prog_name="classify-evaluate")
