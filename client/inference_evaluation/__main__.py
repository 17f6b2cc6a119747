"""The command ``classify-evaluate``."""

import errno
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import click

from inference_client.command_line.extras import require_extras
from inference_client.command_line.formatting import printable
from inference_client.command_line.options import COMMAND_SETTINGS, in_options_words, request_options, server_option
from inference_client.command_line.printing import print_result
from inference_client.command_line.progress import progress
from inference_client.tensors import TensorClient
from inference_client.version import __version__
from inference_evaluation.base_image_copies import find_copies
from inference_evaluation.figures import Figures, compute_figures
from inference_evaluation.labelled_images import read_labelled_images
from inference_evaluation.predictions import Prediction
from inference_evaluation.predictions_file import write_predictions
from inference_evaluation.report.page import Setting, render_page
from inference_evaluation.report.text import say
from inference_evaluation.server_answers import EvaluationError, collect_answers

FIGURES_FILE, PREDICTIONS_FILE, PAGE_FILE = "evaluation.json", "predictions.csv", "report.html"
TERMINATED_EXIT_CODE = 128 + signal.SIGTERM
CLIENT_ID = "evaluation"


@click.command(context_settings=COMMAND_SETTINGS, no_args_is_help=True)
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@server_option
@click.option(
    "-data",
    "--base_data",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The server's base images, a folder for each class. With them, the report shows the nearest base images "
    "beside each error, and counts the images that are copies of base images.",
)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("evaluation"),
    help="Folder for the results; created if it does not exist.",
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

    DIR holds a folder of images for each class, named as the server names the class. A folder with any other name is a
    class that the server does not know: nothing should match its images.

    \b
    Writes into --out:
      report.html       one page with the findings; it needs no other file and no network
      evaluation.json   every figure
      predictions.csv   every image with its answer and the evidence for it

    \b
    Examples:
      classify-evaluate queries/ -ip http://localhost:8080
      classify-evaluate queries/ -ip http://localhost:8080 -data base/ --out monday/

    Results of an earlier evaluation in --out stay until all new results are complete.

    The requests have the client id "evaluation" unless --client_id gives another, so the server's access log and
    metrics tell them apart from other requests.

    Exit status: 0 evaluated, 1 failed (nothing written), 2 wrong usage.
    """  # noqa: D301  (click wants the backspace itself)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED_EXIT_CODE))  # so that no staging folder stays
    require_extras("report")
    client_id = CLIENT_ID if client_id is None else client_id
    try:
        client = TensorClient(url, timeout_s=timeout_s, client_id=client_id, api_key=api_key)
    except ValueError as error:
        raise click.UsageError(in_options_words(str(error))) from error
    try:
        labelled = read_labelled_images(folder)
        if not labelled.images:
            hint = (
                f"it holds files, but no class folders. Is {printable(os.fspath(folder.resolve().parent))} meant?"
                if any(entry.is_file() for entry in folder.iterdir())
                else "make a folder of images in it for each class."
            )
            raise click.UsageError(f"{folder} holds no images of a class: {hint}")
        copies = None if base_data is None else find_copies(labelled.images, base_data)
        with client, _replacing(out) as staging:
            with progress("Evaluating", len(labelled.images)) as advance:
                answers = collect_answers(client, labelled.images, sim_thres=sim_thres, progress=advance)
            figures = compute_figures(answers, sim_thres=sim_thres, copies=copies)
            setting = Setting(
                folder=os.fspath(folder),
                url=client.url,
                base_data=base_data,
                evaluated=datetime.now().astimezone(),
                version=__version__,
                empty_classes=sorted(set(labelled.classes) - {image.truth for image in labelled.images}),
                notes=labelled.notes,
            )
            _write(staging, figures, answers.predictions, setting)
    except EvaluationError as error:
        raise click.ClickException(f"{in_options_words(str(error))} Nothing was written.") from error
    except OSError as error:
        where = error.filename or out
        raise click.ClickException(f"{where}: {error.strerror or error}. Nothing was written.") from error
    sentences = [*say("accuracy", figures), *say("cautions", figures)]
    if figures.classified:
        sentences += say("recommendation", figures)
    print_result(
        "\n".join([*sentences, f"Written: {printable(os.fspath(out / PAGE_FILE))}, {FIGURES_FILE}, {PREDICTIONS_FILE}"])
    )


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Yield a folder to write into; at the end, its files replace those in ``out``.

    The folder lies within ``out``, so that both are on one file system.

    Raises:
        OSError: ``out`` can't be written, or a file in it can't be replaced.
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
                out.rmdir()  # fails if anything was written


def _write(folder: Path, figures: Figures, predictions: Sequence[Prediction], setting: Setting) -> None:
    about = {
        **asdict(setting),
        "base_data": None if setting.base_data is None else os.fspath(setting.base_data),
        "evaluated": setting.evaluated.isoformat(timespec="seconds"),
    }
    text = json.dumps({"setting": about, **asdict(figures)}, indent=1, allow_nan=False)
    (folder / FIGURES_FILE).write_text(f"{text}\n", encoding="utf-8")
    write_predictions(folder / PREDICTIONS_FILE, predictions, figures.server_classes)
    (folder / PAGE_FILE).write_text(render_page(figures, predictions, setting), encoding="utf-8")


if __name__ == "__main__":
    main(prog_name="classify-evaluate")
