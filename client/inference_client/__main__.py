"""The command line: ``classify``, also ``python -m inference_client``."""

import json
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click

from inference_client.classify import Classify
from inference_client.client import Results
from inference_client.command_line.formatting import table_lines
from inference_client.command_line.image_paths import PathError, list_images
from inference_client.command_line.options import COMMAND_SETTINGS, in_options_words, request_options, server_option
from inference_client.command_line.progress import images_progress
from inference_client.command_line.results.output import Output, choose_form
from inference_client.version import __version__

LINKS_OPTIONS = ("-l", "--links")
HEADINGS = ("file", "label", "probability")
EVIDENCE_HEADINGS = ("matches", "nearest base image")
NOTE_HEADING = "note"


class LinksCommand(click.Command):
    """A command whose ``-l`` takes every argument up to the next option, as the original's does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each of its values, as click wants it."""
        repeated = list(_repeat_links(args, ctx))
        first = repeated[0] if repeated else ""
        if not _is_option(first) and not set(LINKS_OPTIONS).intersection(repeated) and Path(first).is_file():
            raise click.UsageError(f"{first!r} stands without an option: name images after -l, as in -l {first}", ctx)
        return super().parse_args(ctx, repeated)


@click.command(
    cls=LinksCommand,
    context_settings=COMMAND_SETTINGS,
    no_args_is_help=True,
)
@click.option(
    "-l",
    "--links",
    "paths",
    metavar="IMG [IMG ...]",
    multiple=True,
    required=True,
    help="Image files, folders for the images in them at any depth, and patterns in quotes, such as 'photos/**/*.jpg'. "
    "Files are sent as they are on disk.",
)
@server_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the evidence, instead of a table.")
@click.option("--csv", "as_csv", is_flag=True, help="Write a row of CSV for each image as its result comes.")
@click.option("--jsonl", "as_json_lines", is_flag=True, help="Write a line of JSON for each image as its result comes.")
@click.option(
    "-o",
    "--output",
    "file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write results to a new file, .csv, .jsonl or .parquet, instead of standard output. Parquet needs the extra "
    "report.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with FILE: send what has no row yet, and what failed with the server or the disk.",
)
@request_options
@click.version_option(__version__, prog_name="classify")
@click.pass_context
def main(
    ctx: click.Context,
    *,
    paths: tuple[str, ...],
    url: str,
    as_json: bool,
    as_csv: bool,
    as_json_lines: bool,
    file: Path | None,
    resume: bool,
    sim_thres: float | None,
    client_id: str | None,
    api_key: str | None,
    timeout_s: float,
) -> None:
    """Classify images on an inference server.

    Prints one line per image: file, label and probability. If the server has a base set, the line also has the number
    of the label's base images that match, and the most similar base image.

    With --csv, --jsonl or -o, each result is written as it comes, in bounded memory. What is written stays after
    Ctrl-C and after an error; the same command with --resume goes on from there.

    \b
    Examples:
      classify -l a.jpg b.jpg -ip http://localhost:8080
      classify -ip http://localhost:8080 --json --sim_thres 0.8 -l photos/*.jpg
      classify -ip http://localhost:8080 -l photos/ -o results.csv
      classify -ip http://localhost:8080 -l photos/ -o results.csv --resume

    Exit status: 0 every image classified, 1 some images not classified, 2 wrong usage. While results
    are written one by one, also 130 after Ctrl-C and 143 after SIGTERM.
    """  # noqa: D301  (click wants the backspace itself)
    form = choose_form(as_csv=as_csv, as_json_lines=as_json_lines, file=file)
    if as_json and form is not None:
        raise click.UsageError("--json is one document of all results: leave it out, or --csv, --jsonl and -o.", ctx)
    if resume and file is None:
        raise click.UsageError("--resume goes on with a file: name it with -o FILE.", ctx)
    try:
        listing = list_images(paths, each_once=form is not None)
        server = Classify(url, timeout_s=timeout_s, sim_thres=sim_thres, client_id=client_id, api_key=api_key)
    except (PathError, ValueError) as error:
        raise click.UsageError(in_options_words(str(error)), ctx) from error
    if listing.left_out:
        click.echo(listing.left_out_text(), err=True)
    with server:
        if form is not None:
            ctx.exit(Output(form, file, resume=resume).write(server, listing.files))
        ctx.exit(_print_all(server, listing.files, as_json=as_json))


def _print_all(server: Classify, images: Sequence[str], *, as_json: bool) -> int:
    try:
        with images_progress(len(images)) as advance:
            results, status_code = server(images, details=True, progress=advance)
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        click.echo(json.dumps(_report(images, results, status_code), indent=2))
    elif isinstance(results, list):
        for line in _table(images, results):
            click.echo(line)
    if status_code == HTTPStatus.OK:
        return 0
    click.echo(f"Error: {in_options_words(_summary(results, status_code))}", err=True)
    return 1


def _repeat_links(args: Sequence[str], ctx: click.Context) -> Iterator[str]:
    rest = list(args)
    while rest:
        argument = rest.pop(0)
        if argument == "--":  # only images follow, whatever their names begin with
            for image in rest:
                yield from ("-l", image)
            return
        if argument in LINKS_OPTIONS:
            if not rest or (_is_option(rest[0]) and rest[0] != "--"):
                raise click.UsageError(f"Option {argument!r} needs at least one image.", ctx)
        elif argument.startswith("--links="):
            yield argument
        else:
            yield argument
            continue
        while rest and not _is_option(rest[0]):
            yield from ("-l", rest.pop(0))


def _is_option(argument: str) -> bool:
    return argument.startswith("-") and argument != "-"


def _report(images: Sequence[str], results: Results, status_code: int) -> dict[str, Any]:
    if isinstance(results, list):
        entries = [{"Image": image, **entry} for image, entry in zip(images, results, strict=True)]
        return {"status_code": status_code, "results": entries}
    return {"status_code": status_code, "results": results}


def _table(images: Sequence[str], results: Sequence[dict[str, Any]]) -> Iterator[str]:
    headings: tuple[str, ...] = HEADINGS
    if any(entry.get("Neighbors") for entry in results):
        headings += EVIDENCE_HEADINGS
    if any("Note" in entry for entry in results):
        headings += (NOTE_HEADING,)
    rows = [_row(click.format_filename(image), entry) for image, entry in zip(images, results, strict=True)]
    if NOTE_HEADING in headings:
        rows = [
            (*row, *[""] * (len(headings) - 1 - len(row)), entry["Note"]) if "Note" in entry else row
            for row, entry in zip(rows, results, strict=True)
        ]
    return table_lines([headings, *rows])


def _row(image: str, entry: dict[str, Any]) -> tuple[str, ...]:
    if "Error" in entry:
        return image, f"no result: {entry['Error']}"
    cells = (image, str(entry["Label"]), f"{entry['Probability']:.4f}")
    if not entry["Neighbors"]:
        return cells
    nearest = entry["Neighbors"][0]
    matches = entry["Matches"].get(entry["Label"], 0)  # the unknown label is no class
    return *cells, str(matches), f"{nearest['Image']} ({nearest['Similarity']:.4f})"


def _summary(results: Results, status_code: int) -> str:
    if isinstance(results, dict):
        return f"{results['error']} (status {status_code})"
    failed = sum("Error" in entry for entry in results)
    return f"{failed} of {len(results)} images have no result (status {status_code})."


if __name__ == "__main__":
    main(prog_name="python -m inference_client")
