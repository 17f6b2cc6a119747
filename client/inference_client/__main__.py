"""The command line: ``classify``, also ``python -m inference_client``."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from typing import Any

import click

from inference_client.classify import Classify
from inference_client.client import Results
from inference_client.command_line.formatting import table_lines
from inference_client.command_line.options import COMMAND_SETTINGS, request_options, server_option
from inference_client.command_line.progress import progress
from inference_client.version import __version__

LINKS_OPTIONS = ("-l", "--links")
LONG_LIST_IMAGES = 32
HEADINGS = ("file", "label", "probability", "matches", "nearest base image")
EVIDENCE_COLUMN = HEADINGS.index("matches")


class LinksCommand(click.Command):
    """A command whose ``-l`` takes every argument up to the next option, as the original's does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each of its values, as click wants it."""
        return super().parse_args(ctx, list(_repeat_links(args, ctx)))


@click.command(
    cls=LinksCommand,
    context_settings=COMMAND_SETTINGS,
    no_args_is_help=True,
)
@click.option(
    "-l",
    "--links",
    "images",
    metavar="IMG [IMG ...]",
    type=click.Path(exists=True, dir_okay=False, readable=True),
    multiple=True,
    required=True,
    help="Image files, sent as they are on disk.",
)
@server_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the evidence, instead of a table.")
@request_options
@click.version_option(__version__, prog_name="classify")
@click.pass_context
def main(
    ctx: click.Context,
    *,
    images: tuple[str, ...],
    url: str,
    as_json: bool,
    sim_thres: float | None,
    client_id: str | None,
    api_key: str | None,
    timeout_s: float,
) -> None:
    """Classify images on an inference server.

    Prints one line per image: file, label and probability. If the server has a base set, the line also has the number
    of the label's base images that match, and the most similar base image.

    \b
    Examples:
      classify -l a.jpg b.jpg -ip http://localhost:8080
      classify -ip http://localhost:8080 --json --sim_thres 0.8 -l photos/*.jpg

    Exit status: 0 every image classified, 1 some images not classified, 2 wrong usage.
    """  # noqa: D301  (click wants the backspace itself)
    try:
        with (
            Classify(url, timeout_s=timeout_s, sim_thres=sim_thres, client_id=client_id, api_key=api_key) as server,
            _progress(len(images)) as advance,
        ):
            results, status_code = server(list(images), details=True, progress=advance)
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error), ctx) from error
    if as_json:
        click.echo(json.dumps(_report(images, results, status_code), indent=2))
    elif isinstance(results, list):
        for line in _table(images, results):
            click.echo(line)
    if status_code != HTTPStatus.OK:
        click.echo(f"Error: {_summary(results, status_code)}", err=True)
        ctx.exit(1)


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


def _progress(images: int) -> AbstractContextManager[Callable[[int], None] | None]:
    return progress("Classifying", images) if images > LONG_LIST_IMAGES else nullcontext()


def _report(images: Sequence[str], results: Results, status_code: int) -> dict[str, Any]:
    if isinstance(results, list):
        entries = [{"Image": image, **entry} for image, entry in zip(images, results, strict=True)]
        return {"status_code": status_code, "results": entries}
    return {"status_code": status_code, "results": results}


def _table(images: Sequence[str], results: Sequence[dict[str, Any]]) -> Iterator[str]:
    rows = [_row(click.format_filename(image), entry) for image, entry in zip(images, results, strict=True)]
    in_clustering_mode = any(len(row) == len(HEADINGS) for row in rows)
    return table_lines([HEADINGS if in_clustering_mode else HEADINGS[:EVIDENCE_COLUMN], *rows])


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
