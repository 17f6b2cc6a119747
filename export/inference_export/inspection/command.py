"""The command ``inspect-repository``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from inference_client.command_line.extras import MissingExtraError, require_extras
from inference_client.command_line.options import COMMAND_SETTINGS
from inference_client.command_line.printing import print_result
from inference_client.command_line.progress import progress
from inference_export.base_set.analysis import analyze
from inference_export.errors import RepositoryError
from inference_export.inspection.base_map import draw_map
from inference_export.inspection.report import as_json, as_text
from inference_export.repository.contents import Contents, read_contents


@click.command(context_settings=COMMAND_SETTINGS)
@click.argument(
    "repository",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default="model_repository",
    metavar="[REPOSITORY]",
)
@click.option(
    "--version",
    "version",
    type=click.IntRange(1),
    metavar="N",
    show_default="the one that the ensemble answers with",
    help="The version to look at.",
)
@click.option(
    "--map",
    "map_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE.png",
    help="Draw the base embeddings as points of a plane, one for each base image. Needs the extra report.",
)
@click.option("--json", "wants_json", is_flag=True, help="Print JSON, with every finding, instead of text.")
def main(*, repository: Path, version: int | None, map_file: Path | None, wants_json: bool) -> None:
    """Say what a model repository holds, and what is wrong with its base set.

    REPOSITORY is a folder that export-repository has written, by default
    ./model_repository. Nothing in it is changed, and it may be served meanwhile.

    In clustering mode every base image is asked about as if it were a query, and
    the others the base set: listed are those that are closer to another class
    than to their own, near-duplicates, and what other thresholds would do.

    \b
    Examples:
      inspect-repository                             what lies in ./model_repository
      inspect-repository exported/ --map map.png     with a map of the base set
      inspect-repository exported/ --json --version 3

    Exit status: 0 whatever was found, 1 no export, or a damaged one, 2 wrong usage.
    """  # noqa: D301  (click wants the backspace itself)
    try:
        if map_file is not None:
            require_extras("report")
        contents = read_contents(repository, version)
        report = _look(contents, map_file)
    except (RepositoryError, MissingExtraError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or repository}: {error.strerror or error}.") from error
    print_result(
        json.dumps(as_json(*report), indent=1, ensure_ascii=False, allow_nan=False) if wants_json else as_text(*report)
    )


def _look(contents: Contents, map_file: Path | None) -> tuple[Contents, Any]:
    base = contents.base
    if base is None:
        if map_file is not None:
            raise RepositoryError(
                f"{contents.repository} answers in classification mode, and has no base set to map. Export it with "
                f"-data.",
                contents.repository,
            )
        return contents, None
    settings = contents.export.settings
    with progress("comparing base images", len(base.embeddings)) as advance:
        analysis = analyze(base.embeddings, base.class_starts, threshold=settings["threshold"], advance=advance)
    if map_file is not None:
        title = (
            f"{contents.repository.resolve().name}, version {contents.export.version}: "
            f"{len(base.embeddings)} base images of {len(settings['classes'])} classes"
        )
        misplaced = analysis.rows[analysis.misplaced]
        try:
            draw_map(
                map_file, base.embeddings, base.class_starts, settings["classes"], misplaced=misplaced, title=title
            )
        except OSError as error:
            raise click.ClickException(f"--map {map_file} can't be written: {error.strerror or error}.") from error
        click.echo(f"drew {map_file}", err=True)
    return contents, analysis


if __name__ == "__main__":
    main(prog_name="inspect-repository")
