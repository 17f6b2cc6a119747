"""The command ``inspect-repository``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from inference_client.command_line.extras import MissingExtraError, require_extras
from inference_client.command_line.options import COMMAND_SETTINGS
from inference_client.command_line.printing import print_result
from inference_client.command_line.progress import progress
from inference_export.base_set.analysis import Analysis, analyze
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
    help="The version to inspect.",
)
@click.option(
    "--map",
    "map_file",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE.png",
    help="Draw a map of the base embeddings, with a point for each base image. Needs the extra report.",
)
@click.option("--json", "wants_json", is_flag=True, help="Print all findings as JSON instead of text.")
def main(*, repository: Path, version: int | None, map_file: Path | None, wants_json: bool) -> None:
    """Show what a model repository holds, and what is wrong with its base set.

    REPOSITORY is a folder that export-repository has written, by default
    ./model_repository. The command changes nothing in it, and a server may use it
    meanwhile.

    In clustering mode, each base image is taken as a query, and all others as the
    base set. The command lists base images that are closer to another class than
    to their own, near-duplicates, and the results of other thresholds.

    \b
    Examples:
      inspect-repository                             inspects ./model_repository
      inspect-repository exported/ --map map.png     with a map of the base set
      inspect-repository exported/ --json --version 3

    Exit status: 0 whatever it finds, 1 no export or a damaged one, 2 wrong usage.
    """  # noqa: D301  (click wants the backspace itself)
    try:
        if map_file is not None:
            require_extras("report")
        contents = read_contents(repository, version)
        analysis = _analyze(contents, map_file)
    except (RepositoryError, MissingExtraError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename or repository}: {error.strerror or error}.") from error
    if wants_json:
        print_result(json.dumps(as_json(contents, analysis), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        print_result(as_text(contents, analysis))


def _analyze(contents: Contents, map_file: Path | None) -> Analysis | None:
    base = contents.base
    if base is None:
        if map_file is not None:
            raise RepositoryError(
                f"{contents.repository} is in classification mode, and has no base set to map. Export it with -data.",
                contents.repository,
            )
        return None
    settings = contents.export.settings
    with progress("comparing base images", len(base.embeddings)) as advance:
        analysis = analyze(
            base.embeddings,
            base.class_starts,
            threshold=settings.threshold,
            has_unknown_label=settings.unknown_label is not None,
            advance=advance,
        )
    if map_file is not None:
        title = (
            f"{contents.repository.resolve().name}, version {contents.export.version.number}: "
            f"{len(base.embeddings)} base images of {len(settings.classes)} classes"
        )
        misplaced = analysis.rows[analysis.misplaced]
        try:
            draw_map(map_file, base.embeddings, base.class_starts, settings.classes, misplaced=misplaced, title=title)
        except OSError as error:
            raise click.ClickException(f"--map {map_file} can't be written: {error.strerror or error}.") from error
        click.echo(f"drew {map_file}", err=True)
    return analysis


if __name__ == "__main__":
    main(prog_name="inspect-repository")
